"""Who may run code on a cluster: those who can read its key, and nobody else."""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

import cloudpickle
import dask
import numpy as np
import psutil
import pytest
import yaml
from distributed import Client

from dsoftmax import DataError, DsoftmaxError, SoftmaxRegression
from dsoftmax.runtime.connect import connected
from dsoftmax.runtime.tls import security_of, security_options, write_certificates

pytestmark = pytest.mark.usefixtures("small_spans")

FILES = {"tls.key": 0o600, "tls.crt": 0o644, "dask.yaml": 0o644}


@pytest.fixture
def others(tmp_path: Path) -> Path:
    """A certificate as any user can make one."""
    write_certificates(tmp_path / "others")
    return tmp_path / "others"


def private(client: Client) -> Path:
    folder: Path = client.cluster.folder
    return folder


def addresses(client: Client) -> list[str]:
    return [client.scheduler.address, *client.scheduler_info(-1)["workers"]]


def test_the_key_is_for_its_owner_only_in_a_folder_that_is_too(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "certs"
    write_certificates(folder)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()} == FILES
    key = (folder / "tls.key").read_text()
    assert key.startswith("-----BEGIN PRIVATE KEY-----")
    assert "PRIVATE" not in (folder / "tls.crt").read_text() + (folder / "dask.yaml").read_text()


def test_the_configuration_names_the_files_for_every_role(others: Path) -> None:
    comm = yaml.safe_load((others / "dask.yaml").read_text())["distributed"]["comm"]
    assert comm["require-encryption"] is True
    role = {"cert": str(others / "tls.crt"), "key": str(others / "tls.key")}
    roles = dict.fromkeys(("scheduler", "worker", "client"), role)
    assert comm["tls"] == {"ca-file": str(others / "tls.crt"), **roles}


def test_certificates_in_use_are_not_replaced(others: Path) -> None:
    before = (others / "tls.key").read_bytes()
    with pytest.raises(DataError, match=r"tls\.key exists; a running cluster may need it"):
        write_certificates(others)
    assert (others / "tls.key").read_bytes() == before


def test_a_folder_of_everyone_is_no_place_for_a_key(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(DataError, match="can be written to by everyone"):
        write_certificates(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_folder_without_certificates_says_how_to_make_them(tmp_path: Path) -> None:
    with pytest.raises(DsoftmaxError, match=r"tls\.crt cannot be read; `dsoftmax certs"):
        security_options(tmp_path)


def test_every_connection_of_the_embedded_cluster_is_tls(cluster: Client) -> None:
    assert {urlsplit(address).scheme for address in addresses(cluster)} == {"tls"}


def test_a_client_without_the_certificate_gets_nowhere(cluster: Client) -> None:
    for address in addresses(cluster):
        with pytest.raises(OSError, match=r"reset|closed"):
            Client(address.replace("tls://", "tcp://"), timeout=10, set_as_default=False)


def test_a_client_with_a_certificate_of_its_own_gets_nowhere(cluster: Client, others: Path) -> None:
    for address in addresses(cluster):
        with pytest.raises(OSError, match="certificate does not match"):
            Client(address, security=security_of(others), timeout=10, set_as_default=False)


@pytest.mark.parametrize("with_certificate", [False, True])
def test_not_a_byte_is_answered_to_a_stranger_who_trusts_everyone(
    cluster: Client, others: Path, with_certificate: bool
) -> None:
    """As an attacker would connect, who does not care whom they talk to."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if with_certificate:
        context.load_cert_chain(others / "tls.crt", others / "tls.key")
    for address in addresses(cluster):
        assert answer(context, urlsplit(address)) == b""


def answer(context: ssl.SSLContext, place: SplitResult) -> bytes:
    """Return the first byte that a Dask server says; it speaks first to whom it lets in."""
    with socket.create_connection((place.hostname, place.port), timeout=60) as plain:
        try:
            with context.wrap_socket(plain) as stranger:
                return stranger.recv(1)
        except (ssl.SSLError, ConnectionError):  # as the handshake ends, or in TLS 1.3 after it
            return b""


def test_who_has_the_certificate_is_answered(cluster: Client) -> None:
    context = security_of(private(cluster)).get_connection_args("client")["ssl_context"]
    for address in addresses(cluster):
        assert len(answer(context, urlsplit(address))) == 1


def test_who_can_read_the_private_folder_is_let_in(cluster: Client) -> None:
    security = security_of(private(cluster))
    with Client(cluster.scheduler.address, security=security, set_as_default=False) as client:
        assert client.submit(sum, [1, 2]).result() == 3


@pytest.mark.parametrize(
    ("scheme", "given", "said"),
    [
        ("tcp", False, r"no Dask scheduler, or wants another certificate .*--certs"),
        ("tls", False, "wants a certificate, and there is none.*--certs FOLDER"),
        ("tls", True, "certificate does not match"),
        ("tcp", True, "encryption is required, and the scheduler .* not at tls://"),
    ],
)
def test_a_refused_connection_says_what_is_missing(
    cluster: Client, others: Path, scheme: str, given: bool, said: str
) -> None:
    address = cluster.scheduler.address.replace("tls://", f"{scheme}://")
    with (
        pytest.raises(DsoftmaxError, match=said),
        connected(address, certs=others if given else None),
    ):
        pass


def test_the_certificate_is_found_by_the_scheduler_file(cluster: Client) -> None:
    folder = private(cluster)
    with connected(scheduler_file=folder / "scheduler.json", certs=folder) as client:
        assert client.submit(sum, [1, 2]).result() == 3


@pytest.mark.parametrize("content", [None, "", "[1]", '{"id": 7}', "no JSON"])
def test_a_scheduler_that_never_writes_its_file_is_waited_for_only_so_long(
    tmp_path: Path, content: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dsoftmax.runtime.connect._FLUSH_SECONDS", 0.1)
    if content is not None:
        (tmp_path / "s.json").write_text(content)
    with (
        dask.config.set({"dsoftmax.worker-timeout": "100ms"}),
        pytest.raises(DsoftmaxError, match=r"no Dask scheduler has written .*s\.json"),
        connected(scheduler_file=tmp_path / "s.json"),
    ):
        pass


def test_the_key_is_in_no_task_no_log_no_command_and_no_checkpoint(
    cluster: Client,
    digits: tuple[np.ndarray, np.ndarray],
    store: Callable[..., str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    X, y = digits
    path, folder = store(rows=97, X=X, y=y), private(cluster)
    key = (folder / "tls.key").read_text().splitlines()[1]
    send, sent = cluster.map, []

    def recorded(*args: Any, **keywords: Any) -> Any:
        sent.append(cloudpickle.dumps((args, keywords)))
        return send(*args, **keywords)

    monkeypatch.setattr(cluster, "map", recorded)
    model = SoftmaxRegression(alpha=1, checkpoint=tmp_path / "state")
    model.fit(f"{path}/X", f"{path}/y").save(tmp_path / "model.zarr")
    sent.append(cloudpickle.dumps(dict(model.predict(f"{path}/X").__dask_graph__())))

    servers = [cluster.cluster.scheduler, *cluster.cluster.workers.values()]
    processes = [psutil.Process(server.process.pid) for server in servers]
    processes += [child for process in processes for child in process.children(recursive=True)]
    said = [" ".join(p.cmdline()) + str(p.environ()) for p in processes]
    said += [json.dumps(dict(cluster.get_scheduler_logs())), (folder / "log").read_text()]
    written = [p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()]
    assert len(sent) > 3
    assert len(processes) >= 5
    assert len(written) > 5
    for content in (*sent, *(text.encode() for text in said), *written):
        assert key.encode() not in content
