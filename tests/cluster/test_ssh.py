"""Training over SSH, by a server of our own on loopback."""

from __future__ import annotations

import getpass
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest

from dsoftmax import SoftmaxRegression
from dsoftmax.runtime.tls import write_certificates
from tests.cluster import ports

pytest.importorskip("asyncssh", reason="needs the extra ssh")
SSHD = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(SSHD is None, reason="this machine has no sshd"),
    # asyncssh and SSHCluster leave their connections to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture
def login(tmp_path: Path) -> Iterator[dict[str, Any]]:
    """Start a server that lets only the holder of a new key in."""
    keys = tmp_path / "ssh"
    keys.mkdir(mode=0o700)
    for name in ("host", "user"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", keys / name], check=True
        )
    shutil.copy(keys / "user.pub", keys / "authorized")
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = int(found.getsockname()[1])
    kind, key, *_ = (keys / "host.pub").read_text().split()
    (keys / "known").write_text(f"[127.0.0.1]:{port} {kind} {key}\n")
    # What chooses the arithmetic is the same on all machines of a cluster.
    alike = [f"{name}={value}" for name, value in os.environ.items() if "OPENBLAS" in name]
    (keys / "config").write_text(
        f"ListenAddress 127.0.0.1:{port}\nHostKey {keys}/host\nPidFile none\nUsePAM no\n"
        f"AuthorizedKeysFile {keys}/authorized\nStrictModes no\nPermitRootLogin yes\n"
        "PasswordAuthentication no\n" + "SetEnv " * bool(alike) + " ".join(alike) + "\n"
    )
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # where it keeps apart what needs no rights
    with subprocess.Popen([str(SSHD), "-D", "-e", "-f", keys / "config"], stderr=-3) as server:
        wait_for(port)
        yield {
            "port": port,
            "username": getpass.getuser(),
            "client_keys": [str(keys / "user")],
            "known_hosts": str(keys / "known"),
            "config": None,
        }
        server.terminate()


def wait_for(port: int) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
            return
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_a_cluster_over_ssh_trains_to_the_same_bits(
    login: dict[str, Any],
    tmp_path: Path,
    store: Callable[..., str],
    digits: tuple[np.ndarray, np.ndarray],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from cluster.ssh import cluster_over_ssh

    (X, y), server = digits, str(tmp_path / "ssh/config")
    path = store(rows=97, X=X, y=y)
    write_certificates(tmp_path / "certs")
    secret = {"dsoftmax": {"storage-options": {"s3": {"secret": "to-be-kept"}}}}
    # A copy all the way down: the cluster updates it in place.
    monkeypatch.setattr(dask.config, "config", deepcopy(dask.config.config) | secret)
    monkeypatch.setattr(dask.config, "global_config", dask.config.config)
    with (
        cluster_over_ssh(tmp_path / "certs", ["127.0.0.1"] * 2, 2, login) as cluster,
        cluster.get_client() as client,
    ):
        client.wait_for_workers(2, timeout=60)
        model = SoftmaxRegression(alpha=1).fit(f"{path}/X", f"{path}/y")
        addresses = [cluster.scheduler_address, *client.scheduler_info(-1)["workers"]]
        environments = [str(process.environ()) for process in ports.family(server)]
        ports.require_only_tls_elsewhere(server, least=3)
    assert {address[:6] for address in addresses} == {"tls://"}
    assert len(environments) >= 3
    assert any("DASK_INTERNAL_INHERIT_CONFIG" in environment for environment in environments)
    assert not any("storage-options" in inherited(text) for text in environments)
    here = SoftmaxRegression(alpha=1).fit(f"{path}/X", f"{path}/y")
    assert model.coef_.tobytes() == here.coef_.tobytes()


def inherited(environment: str) -> str:
    """Return the configuration that Dask has sent along, as text."""
    found = re.search(r"'DASK_INTERNAL_INHERIT_CONFIG': '([^']*)'", environment)
    return "" if found is None else str(dask.config.deserialize(found[1]))
