"""Commands that are given a URL with credentials print and write none of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import dask
import pytest

from dsoftmax import SoftmaxRegression
from dsoftmax.storage.credentials import public_url
from tests import web_store
from tests.conftest import Done, Dsoftmax
from tests.web_store import SECRET, Site, leaks, spelled

pytestmark = pytest.mark.usefixtures("quick_retries")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A site with the Zarr group data.zarr."""
    with web_store.serve(tmp_path / "web") as served, dask.config.set({"dsoftmax.read-retries": 1}):
        yield served


def roots(site: Site) -> list[str]:
    return [f"{site.by_password}/data.zarr", f"{site.by_token}/data.zarr"]


def require_secret_kept(done: Done) -> Done:
    said = f"{done.stdout}\n{done.stderr}"
    assert not [line for line in said.splitlines() if spelled(line)]
    return done


@pytest.mark.parametrize("kind", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_run_folder_holds_no_secret(
    dsoftmax: Dsoftmax, site: Site, tmp_path: Path, kind: int
) -> None:
    root = roots(site)[kind]
    options = ("--max-iter", "2", "--tol", "0", "--run-folder", tmp_path / "run")
    options += ("--validation", root, "--log", tmp_path / "events.jsonl")
    site.statuses = {"X/c/2/0": 503}
    failed = require_secret_kept(dsoftmax("train", root, *options))
    assert failed.returncode == 75
    assert "cannot be read" in failed.stderr
    site.statuses = {}
    done = require_secret_kept(dsoftmax("train", root, *options, "--json"))
    assert done.returncode == 0, done.stderr
    assert all(map(json.loads, done.stdout.splitlines()))
    assert "127.0.0.1" in (tmp_path / "run" / "config.toml").read_text()
    assert not leaks(tmp_path)


def test_a_model_at_a_url_is_named_without_its_secret(
    dsoftmax: Dsoftmax, site: Site, tmp_path: Path
) -> None:
    root = roots(site)[0]
    for model in (f"{site.by_password}/model", "m.zarr"):
        done = require_secret_kept(dsoftmax("train", root, model, "--max-iter", "2"))
        assert done.stdout.splitlines()[-1] == f"model: {public_url(model)}"
    done = require_secret_kept(dsoftmax("predict", "m.zarr", root, f"{site.by_password}/p"))
    assert done.stdout == f"predict_proba: http://***@{site.address}/p\n"
    assert not leaks(tmp_path)


@pytest.mark.slow
def test_a_local_cluster_of_a_command_tells_no_secret(
    dsoftmax: Dsoftmax, site: Site, tmp_path: Path
) -> None:
    site.statuses = {"X/c/2/0": 503}
    options = ("--workers", "2", "--run-folder", tmp_path / "run")
    failed = require_secret_kept(dsoftmax("train", roots(site)[0], *options))
    assert failed.returncode == 75
    assert "cannot be read" in failed.stderr
    assert not leaks(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("status", [200, 401, 404, 500])
def test_no_command_prints_a_secret(
    dsoftmax: Dsoftmax, site: Site, tmp_path: Path, status: int
) -> None:
    data = site.folder / "data.zarr"
    SoftmaxRegression().fit(data / "X", data / "y").save(tmp_path / "m.zarr")
    if status != 200:
        site.statuses = {"": status}
    urls = [*roots(site), f"s3://KEY:{SECRET}@bucket/a", f"http:/user:{SECRET}@host/a"]
    for number, url in enumerate(urls):
        for command in (
            ("inspect", url),
            ("inspect", f"{url}/X", "--y", "y"),
            ("inspect", f"{url}/X", "--json"),
            ("plan", url),
            ("plan", url, "--ignore-label", "a"),
            ("train", url, f"m{number}.zarr", "--dry-run", "--checkpoint", f"{url}/state"),
            ("train", url, url, "--overwrite"),
            ("train", url, f"m{number}.zarr", url),
            ("train", f"--{url}", url),
            ("train", url, "m.zarr", "--scheduler", url),
            ("evaluate", "m.zarr", url),
            ("evaluate", url, url, "--json"),
            ("predict", "m.zarr", url, f"{url}/p", "--resume"),
            ("predict", "m.zarr", url, url, "--overwrite"),
            ("ingest", url, f"in{number}.zarr"),
            ("ingest", url, url),
            ("ingest", "m.zarr", f"{url}/out"),
            (url,),
        ):
            require_secret_kept(dsoftmax(*command))
    assert not leaks(tmp_path)


@pytest.mark.parametrize(
    "content",
    ['[data]\nstore = ["{}"]', '[data]\nstores = "{}"', '[model]\nfit_intercept = "{}"', "{}"],
)
def test_an_error_of_a_run_file_prints_no_secret(
    dsoftmax: Dsoftmax, tmp_path: Path, content: str
) -> None:
    file = tmp_path / "run.toml"
    file.write_text(content.format(f"http://user:{SECRET}@host/a"))
    done = require_secret_kept(dsoftmax("train", "a", "b", "--config", file))
    assert done.returncode == 2
