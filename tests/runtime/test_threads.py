"""Tasks on the threads of this process."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import zarr

from dsoftmax import SoftmaxRegression, open_data
from dsoftmax.errors import ChunkError, OutageError
from dsoftmax.runtime.threads import ThreadExecutor
from tests.faulty import Faulty


def test_an_error_is_told_while_other_tasks_still_run() -> None:
    """They may be trying a store that does not answer, again and again."""
    started, go_on, ended = threading.Event(), threading.Event(), threading.Event()

    def fail_or_hang(number: int) -> None:
        if number == 0:
            assert started.wait(10)
            raise OutageError("the storage is gone")
        started.set()
        go_on.wait(10)
        ended.set()

    with ThreadExecutor() as executor:
        executor.slots = 2
        try:
            with pytest.raises(OutageError, match="storage is gone"):
                list(executor.run("hang", fail_or_hang, [(0,), (1,)]))
            assert not ended.is_set()
        finally:
            go_on.set()
    assert ended.is_set()


@dataclass(frozen=True)
class Slow(Faulty):
    """An array whose other chunks are read when those of the script have failed."""

    def read(self, start: int, stop: int) -> np.ndarray:
        found = super().read(start, stop)
        time.sleep(0.2)
        return found


@pytest.mark.usefixtures("small_spans")
def test_a_prediction_that_fails_leaves_no_folder_that_other_tasks_still_write_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    X = np.arange(400.0).reshape(200, 2)
    model = SoftmaxRegression(tol=1e-2).fit(X, np.arange(200) // 100)
    zarr.create_array(tmp_path / "X", data=X, chunks=(50, 2))
    monkeypatch.setattr("dsoftmax.runtime.threads.CPU_COUNT", 4)
    source, log = open_data(tmp_path / "X"), tmp_path / "log"
    log.mkdir()
    source = replace(source, X=Slow(source.X, {0: ["bad"]}, log))
    with pytest.raises(ChunkError, match="rows 0 to 49"):
        model.predict_to(source, tmp_path / "p.zarr")
    assert not list(tmp_path.glob("*p.zarr*"))
