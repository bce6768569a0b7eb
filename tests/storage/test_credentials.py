"""Credentials stay where they are: each process opens stores with its own."""

from __future__ import annotations

from typing import Any

import cloudpickle
import dask
import numpy as np
import pytest
import zarr
from distributed import Client

from dsoftmax import SoftmaxRegression, open_data
from tests.object_store import SECRET, Bucket


def configure(options: dict[str, Any]) -> None:
    dask.config.set({"dsoftmax.storage-options": {"s3": options}})


def test_a_cluster_reads_s3_by_its_own_credentials_and_no_task_carries_them(
    cluster: Client, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 90)
    X = rng.normal(size=(90, 3)) + 2 * np.eye(3)[y]
    url, options = bucket.url, bucket.options
    opened = zarr.create_array(f"{url}/X", data=X, chunks=(30, 3), storage_options=options)
    zarr.create_array(f"{url}/y", data=y + 1, chunks=(90,), storage_options=options)
    give, run, sent = cluster.map, cluster.run, []

    def recorded(send: Any) -> Any:
        def sending(*args: Any, **keywords: Any) -> Any:
            sent.append(cloudpickle.dumps((args, keywords)))
            return send(*args, **keywords)

        return sending

    cluster.run(configure, options)
    try:
        monkeypatch.setattr(cluster, "map", recorded(give))
        monkeypatch.setattr(cluster, "run", recorded(run))
        model = SoftmaxRegression(alpha=1).fit(f"{url}/X", f"{url}/y")
        model.predict_to(f"{url}/X", f"{url}/p")
        lazy = model.predict(f"{url}/X")
        sent.append(cloudpickle.dumps(dict(lazy.__dask_graph__())))
        assert lazy.compute().shape == (90,)
    finally:
        monkeypatch.undo()
        cluster.run(configure, {})
    expected = SoftmaxRegression(alpha=1).fit(X, y + 1)
    np.testing.assert_allclose(model.coef_, expected.coef_, atol=1e-6)
    assert any(b"bucket-" in task for task in sent)
    assert not any(SECRET.encode() in task for task in sent)
    assert SECRET.encode() in cloudpickle.dumps(opened)  # it is what is avoided


def test_obstore_opens_urls_where_the_setting_says_so(bucket: Bucket) -> None:
    X = np.arange(12.0).reshape(6, 2)
    zarr.create_array(f"{bucket.url}/X", data=X, chunks=(3, 2), storage_options=bucket.options)
    options = {
        "endpoint": bucket.options["endpoint_url"],
        "access_key_id": bucket.options["key"],
        "secret_access_key": bucket.options["secret"],
        "client_options": {"allow_http": True},
    }
    setting = {"dsoftmax.object-store": "obstore", "dsoftmax.storage-options": {"s3": options}}
    with dask.config.set(setting):
        np.testing.assert_array_equal(open_data(f"{bucket.url}/X").read(0, 6).X, X)
