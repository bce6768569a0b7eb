"""How commands find a cluster, and the certificate that it wants."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import dask
import numpy as np
import pytest

from tests.cli.conftest import Dsoftmax


def test_certs_makes_a_folder_for_one_cluster_and_says_how_to_use_it(
    tmp_path: Path, dsoftmax: Dsoftmax
) -> None:
    done = dsoftmax("certs", "new", "--days", 9)
    assert done.returncode == 0, done.stderr
    assert f"export DASK_CONFIG={tmp_path}/new/dask.yaml" in done.stdout
    assert (tmp_path / "new/tls.key").stat().st_mode & 0o777 == 0o600
    mounted = dsoftmax("certs", "other", "--at", "/certs")
    assert "export DASK_CONFIG=/certs/dask.yaml" in mounted.stdout
    assert "key: /certs/tls.key" in (tmp_path / "other/dask.yaml").read_text()
    again = dsoftmax("certs", "new")
    assert (again.returncode, "exists" in again.stderr) == (2, True)


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--certs", "."], 2, "--certs is for --scheduler"),
        (["--scheduler", "tls://127.0.0.1:9"], 1, "wants a certificate"),
        (
            ["--scheduler", "tls://127.0.0.1:9", "--certs", "data.zarr"],
            1,
            "tls.crt cannot be read; `dsoftmax certs",
        ),
        (["--scheduler-file", "data.zarr/zarr.json"], 1, "has written its address to"),
        (["--scheduler-file", "none.json"], 1, "waiting for a scheduler to write none.json"),
    ],
)
def test_a_cluster_that_cannot_be_reached_is_one_message(
    store: Callable[..., str],
    dsoftmax: Dsoftmax,
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    code: int,
    message: str,
) -> None:
    store(X=np.ones((9, 2)), y=1 + np.arange(9) % 3)
    monkeypatch.setattr("dsoftmax.runtime.connect._FLUSH_SECONDS", 0.1)
    with dask.config.set({"dsoftmax.worker-timeout": "100ms"}):
        done = dsoftmax("train", "data.zarr", "m.zarr", *options)
    assert done.returncode == code
    assert message in done.stderr
