"""The commands read encoded stores as their attributes say."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from tests.conftest import Dsoftmax
from tests.data import encoded


def test_inspect_tells_what_is_decoded_and_missing(dsoftmax: Dsoftmax, tmp_path: Path) -> None:
    X, y, w, _ = encoded.decoded(encoded.write(tmp_path / "s", "everything", 3))
    done = dsoftmax("inspect", "s", "--sample-weight", "w")
    assert done.returncode == 0
    decoded = "decoded: read as int16; scale_factor 0.001, add_offset -0.1; missing where -32768"
    assert decoded in done.stdout
    report = json.loads(dsoftmax("inspect", "s", "--sample-weight", "w", "--json").stdout)
    assert report["non_finite_values"] == np.isnan(X).sum()
    assert report["missing_targets"] == (np.isnan(y) | np.isnan(w)).sum()
    assert report["arrays"]["y"]["decoded"] == {"dtype": "int32", "fill_values": [-1]}


def test_a_store_is_ingested_with_what_decodes_it(dsoftmax: Dsoftmax, tmp_path: Path) -> None:
    encoded.write(tmp_path / "s", "packed", 2)
    assert dsoftmax("ingest", "s", "out", "--shuffle", "1").returncode == 0
    done = dsoftmax("inspect", "out")
    assert "scale_factor 0.001, add_offset -0.1; missing where -32768" in done.stdout
    assert "missing        4 values in 4 rows" in done.stdout
