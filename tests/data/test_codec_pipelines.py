"""Rows are the same, and what is damaged is found, by another codec pipeline of Zarr."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from zarr.codecs import BloscCodec, ZstdCodec

from dsoftmax import ChunkError, SoftmaxRegression, open_data
from dsoftmax.runtime.local_cluster import local_cluster

LAYOUTS: dict[str, dict[str, Any]] = {
    "chunks": {"chunks": (50, 3)},
    "shards": {"chunks": (10, 3), "shards": (50, 3)},
    "uncompressed": {"chunks": (50, 2), "compressors": None},
    "blosc": {"chunks": (50, 3), "compressors": BloscCodec()},
    "zstd": {"chunks": (50, 3), "compressors": ZstdCodec(checksum=True)},
    "format 2": {"chunks": (50, 3), "zarr_format": 2},
}
ZARRS = "zarrs.ZarrsCodecPipeline"


@pytest.fixture
def zarrs() -> Iterator[None]:
    with zarr.config.set({"codec_pipeline.path": ZARRS}):
        yield


def opened(folder: Path, layout: dict[str, Any]) -> Any:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(220, 3)).astype("f4")
    zarr.create_array(folder / "X", data=X, **layout)
    zarr.create_array(folder / "y", data=X.argmax(axis=1), chunks=(100,))
    return X, open_data(folder / "X", folder / "y")


@pytest.mark.usefixtures("zarrs")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_rows_are_the_same(tmp_path: Path, layout: str) -> None:
    X, source = opened(tmp_path, LAYOUTS[layout])
    assert type(source.X.array().async_array.codec_pipeline).__module__.startswith("zarrs")
    for start, stop in [(0, 50), (200, 220), (30, 160), (0, 220)]:
        found = source.read(start, stop)
        np.testing.assert_array_equal(found.X, X[start:stop])
        np.testing.assert_array_equal(found.y, X[start:stop].argmax(axis=1))
    model = SoftmaxRegression().fit(source)
    again = SoftmaxRegression().fit(X, X.argmax(axis=1))
    np.testing.assert_allclose(model.coef_, again.coef_, rtol=1e-3, atol=1e-4)


@pytest.mark.usefixtures("zarrs")
@pytest.mark.parametrize("layout", ["chunks", "shards", "uncompressed"])
def test_a_chunk_that_is_cut_off_is_named(tmp_path: Path, layout: str) -> None:
    _, source = opened(tmp_path, LAYOUTS[layout])
    (file,) = (tmp_path / "X").glob("c/2/0")
    file.write_bytes(file.read_bytes()[:20])
    with pytest.raises(ChunkError, match=r"c/2/0"):
        source.read(100, 150)


@pytest.mark.slow
def test_workers_of_a_local_cluster_have_it_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened(tmp_path, LAYOUTS["shards"])
    monkeypatch.setenv("ZARR_CODEC_PIPELINE__PATH", ZARRS)
    with local_cluster(1) as cluster, cluster.get_client() as client:
        (name,) = client.run(pipeline_of, os.fspath(tmp_path / "X")).values()
    assert name == "ZarrsCodecPipeline"


def pipeline_of(path: str) -> str:
    return type(zarr.open_array(path, mode="r").async_array.codec_pipeline).__name__
