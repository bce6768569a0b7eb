"""Credentials in URLs open stores, and are in nothing that is printed, logged, sent or written."""

from __future__ import annotations

import asyncio
import errno
import io
import logging
import pickle
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import urlopen

import dask
import dask.array as da
import numpy as np
import pytest
import zarr
from distributed import Client

from dsoftmax import (
    SoftmaxRegression,
    SoftmaxRegressionCV,
    inspect_data,
    load_model,
    open_data,
    plan_fit,
)
from dsoftmax.data.ingest.ingestion import ingest
from dsoftmax.diagnostics import JsonLines
from dsoftmax.errors import DataError
from dsoftmax.storage.credentials import Place, public_error, public_errors, public_text, public_url
from tests import web_store
from tests.web_store import SECRET, Site, leaks, spelled

# Of letters, as tokens are; encoded; a key of AWS, which people do not encode.
SECRETS = ("s3cretTOKEN0123", "s3%2Fcret%40T%3F", "s3cr/et+TOK/EN==")
FORMS = {
    "http://user:{}@host:8000/a.zarr/X": "http://***@host:8000/a.zarr/X",
    "http://{}@host/a.zarr/X": "http://***@host/a.zarr/X",
    "HTTPS://user:{}@host": "HTTPS://***@host",
    "http://host/a.zarr?token={}": "http://host/a.zarr?***",
    "https://host/a.zarr?X-Amz-Date=1&X-Amz-Signature={}#b": "https://host/a.zarr?***",
    "abfs://data@account.dfs.core.windows.net/a?sv=1&sig={}": (
        "abfs://data@account.dfs.core.windows.net/a?***"
    ),
    "http://host/a.zarr#{}": "http://host/a.zarr#***",
    "http://host/a.zarr;token={}": "http://host/a.zarr?***",
    "http://host/a.zarr%3Ftoken%3D{}": "http://host/a.zarr?***",
    "http://user%3A{}%40host/a.zarr": "http://***@host/a.zarr",
    "s3://KEY:{}@bucket/a.zarr": "s3://***@bucket/a.zarr",
    "s3://KEY:1{}@bucket/a.zarr": "s3://***@bucket/a.zarr",
    "simplecache::http://user:{}@host/a.zarr": "simplecache::http://***@host/a.zarr",
    "zip://X::https://host/a.zip?token={}": "zip://X::https://host/a.zip?***",
    "zip://X::simplecache::s3://KEY:{}@bucket/a": "zip://X::simplecache::s3://***@bucket/a",
    "http://proxy/http://user:{}@host/a": "http://proxy/http://***@host/a",
    "http:/user:{}@host/a.zarr": "http:/***@host/a.zarr",  # what pathlib makes of it
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("secret", SECRETS)
def test_a_place_is_named_so_that_it_can_be_told_and_its_secret_cannot(
    form: str, secret: str
) -> None:
    if "/" in secret and not form.startswith(("s3", "zip")) and "?" not in form:
        secret = secret.replace("/", "")  # nothing would tell it from a path
    url, name = form.format(secret), FORMS[form]
    assert public_url(url) == name
    assert public_url(name) == name
    assert secret not in public_text(f"404, message='Not Found', url='{url}': see {url}, <{url}>.")


@pytest.mark.parametrize(
    "place",
    [
        "data/a.zarr",
        "/home/me@work/a b?.zarr/X#1",
        "C:/data/a.zarr",
        "s3://bucket/a.zarr/X",
        "http://host:8000/a@b/X",
        "http://[::1]:8000/X",
        "zip://X::a.zip",
        "abfs://data@account.dfs.core.windows.net/a",
    ],
)
def test_a_place_without_credentials_keeps_its_name(place: str) -> None:
    assert public_url(place) == place
    assert public_url(Path(place)) == str(Path(place))


def test_the_text_of_a_driver_loses_headers_and_the_secrets_of_the_settings() -> None:
    options = {"s3": {"key": "AKIA-1234", "client_kwargs": {"headers": ["Token 5678"]}}}
    with dask.config.set({"dsoftmax.storage-options": options}):
        assert public_text("got AKIA-1234 and Token 5678") == "got *** and ***"
    assert public_text("Authorization: Basic dXNlcjpz") == "Authorization: Basic ***"
    assert public_text("no bucket KEY:SECRET@bucket/X") == "no bucket ***@bucket/X"


class _DriverError(Exception):
    """An error with arguments of its own, as those of aiohttp have."""

    def __init__(self, url: str, *, status: int) -> None:
        self.url, self.status = url, status

    def __str__(self) -> str:
        return f"{self.status} at {self.url}"


def _chained() -> BaseException:
    url = f"http://user:{SECRET}@host/X"
    try:
        try:
            raise _DriverError(url, status=503)
        except _DriverError as error:
            raise OSError(errno.EIO, "cannot be read", url) from error
    except OSError as error:
        try:
            raise DataError(f"{url} is away") from error
        except DataError as last:
            return last


def test_an_error_that_shows_a_secret_is_made_anew_with_its_class_and_its_causes() -> None:
    error = public_error(_chained())
    assert not spelled("".join(traceback.format_exception(error)))
    assert not spelled(pickle.dumps(error.__cause__))
    assert type(error) is DataError
    assert str(error) == "http://***@host/X is away"
    cause = error.__cause__
    assert type(cause) is OSError
    assert cause.errno == errno.EIO
    assert cause.filename == "http://***@host/X"
    driver: Any = cause.__cause__
    assert str(driver) == "_DriverError: 503 at http://***@host/X"
    assert driver.status == 503
    assert error.__traceback__ is not None


def test_an_error_that_shows_none_is_raised_as_it_is() -> None:
    made = KeyError("X")
    with pytest.raises(KeyError) as caught, public_errors():
        raise made
    assert caught.value is made


def test_a_place_that_is_sent_to_workers_has_a_repr_without_credentials() -> None:
    assert repr(Place("s3://KEY:SECRET@bucket/a")) == "s3://***@bucket/a"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A site with the Zarr group data.zarr."""
    with web_store.serve(tmp_path / "web") as served:
        yield served


def roots(site: Site) -> list[str]:
    return [f"{site.by_password}/data.zarr", f"{site.by_token}/data.zarr"]


BROKEN = {"": 200, "X/c/1/0": 503, "X/c/2/0": 404, "y/c/0": 403, "c/0/0": 500}
QUICK = [(0, ""), (1, "X/c/1/0")]


@pytest.fixture
def outputs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[str], None]]:
    """Note what is said; at the end all of it, and what is logged and written, lacks the secret."""
    said: list[str] = []
    caplog.set_level(logging.DEBUG, "dsoftmax")
    caplog.set_level(logging.INFO)
    printed = io.StringIO()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with redirect_stdout(printed), redirect_stderr(printed):
            yield said.append
    said += [printed.getvalue(), caplog.text, *(str(warning.message) for warning in caught)]
    assert not [line for text in said for line in text.splitlines() if spelled(line)]
    assert not leaks(tmp_path)


def said_by(action: Callable[[], Any]) -> str:
    """Return what an action that may fail says: its result, or its error with all causes."""
    try:
        return repr(action())
    except Exception as error:
        links, texts = [error], []
        while links:
            link = links.pop()
            texts += ["".join(traceback.format_exception(link)), repr(link), str(vars(link))]
            links += [each for each in (link.__cause__, link.__context__) if each is not None]
        return "\n".join(texts)


CASES = [
    pytest.param(kind, end, marks=[] if (kind, end) in QUICK else pytest.mark.slow)
    for kind in range(2)
    for end in BROKEN
]


@pytest.mark.usefixtures("quick_retries", "checkpoint_always")
@pytest.mark.parametrize(("kind", "end"), CASES)
def test_a_fit_in_process_says_and_writes_no_secret(
    site: Site, outputs: Callable[[str], None], tmp_path: Path, kind: int, end: str
) -> None:
    root = roots(site)[kind]
    site.statuses.update({end: BROKEN[end]} if end else {})
    model = SoftmaxRegression(
        max_iter=2,
        tol=0,
        verbose=1,
        checkpoint=tmp_path / "state",
        callbacks=[JsonLines(tmp_path / "events.jsonl")],
    )
    with dask.config.set({"dsoftmax.read-retries": 1}):
        outputs(said_by(lambda: open_data(f"{root}/X", f"{root}/y")))
        outputs(said_by(lambda: plan_fit(f"{root}/X", f"{root}/y", model=model)))
        outputs(said := said_by(lambda: model.fit(f"{root}/X", f"{root}/y")))
    assert ("cannot be read" in said) == bool(end)
    if not end:
        model.save(tmp_path / "model.zarr")
        outputs(repr(load_model(tmp_path / "model.zarr").history_))


DOORS: dict[str, Callable[[str, Path], Any]] = {
    "open_data": lambda root, _: open_data(f"{root}/X", f"{root}/y"),
    "open_data of nothing": lambda root, _: open_data(f"{root}/Z"),
    "open_data of a group": lambda root, _: open_data(root),
    "open_data of what is shorter": lambda root, _: open_data(f"{root}/X", f"{root}/column"),
    "open_data of false attributes": lambda root, _: open_data(f"{root}/Xi"),
    "open_data of pickles": lambda root, _: open_data(f"{root}/pickled"),
    "inspect_data": lambda root, _: inspect_data(f"{root}/X", f"{root}/y"),
    "fit a column": lambda root, _: FIT.fit(f"{root}/X", f"{root}/column"),
    "fit with weights": lambda root, _: FIT.fit(f"{root}/X", f"{root}/y", f"{root}/X"),
    "validate": lambda root, _: FIT.fit(*DATA, X_val=f"{root}/X", y_val=f"{root}/y"),
    "search": lambda root, _: SoftmaxRegressionCV(alphas=[1], cv=2, max_iter=2).fit(
        f"{root}/X", f"{root}/y"
    ),
    "partial_fit": lambda root, _: SoftmaxRegression(solver="sgd").partial_fit(
        f"{root}/X", f"{root}/y", classes=[0, 1, 2]
    ),
    "checkpoint": lambda root, _: SoftmaxRegression(checkpoint=f"{root}/state", max_iter=2).fit(
        *DATA
    ),
    "predict": lambda root, _: FIT.fit(*DATA).predict(f"{root}/X").compute(),
    "evaluate": lambda root, _: FIT.fit(*DATA).evaluate(f"{root}/X", f"{root}/y"),
    "predict_to": lambda root, _: FIT.fit(*DATA).predict_to(f"{root}/X", f"{root}/p"),
    "predict_to, resumed": lambda root, folder: FIT.fit(*DATA).predict_to(
        f"{root}/X", folder / "p.zarr", resume=True
    ),
    "predict_to over its data": lambda root, _: FIT.fit(*DATA).predict_to(
        f"{root}/X", f"{root}/X/p"
    ),
    "predict_to over what is there": lambda root, _: FIT.fit(*DATA).predict_to(
        DATA[0], f"{root}/y"
    ),
    "save": lambda root, _: FIT.fit(*DATA).save(f"{root}/model"),
    "save over data": lambda root, _: FIT.fit(*DATA).save(root, overwrite=True),
    "load_model": lambda root, _: load_model(f"{root}/model"),
    "load_model of data": lambda root, _: load_model(root),
    "ingest": lambda root, folder: ingest(root, folder / "in.zarr"),
    "ingest of no pair": lambda root, folder: ingest(root, folder / "in.zarr", x="Z"),
    "ingest to it": lambda root, folder: ingest(folder / "web" / "data.zarr", f"{root}/out"),
    "ingest to itself": lambda root, _: ingest(root, root),
    "a Dask array": lambda root, _: of_user(da.from_zarr, root),
    "a Zarr array": lambda root, _: of_user(partial(zarr.open_array, mode="r"), root),
}


def of_user(opened: Callable[[str], Any], root: str) -> Any:
    """Fit an array that the user has opened; what is said if that fails is not ours."""
    with suppress(Exception):
        X = opened(f"{root}/X")
        return FIT.fit, said_by(lambda: FIT.fit(X, DATA[1]))


DATA = np.arange(180.0).reshape(90, 2), np.arange(90) % 3
FIT = SoftmaxRegression(max_iter=2, tol=0)
PREFIXES = ["", "simplecache::", "zip://a::"]


@pytest.mark.slow
@pytest.mark.usefixtures("quick_retries")
@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("status", [200, 401, 404, 500])
def test_no_door_says_a_secret(
    site: Site, outputs: Callable[[str], None], tmp_path: Path, door: str, status: int
) -> None:
    if status != 200:
        site.statuses[""] = status
    urls = [f"{prefix}{root}" for root in roots(site) for prefix in PREFIXES]
    urls += [f"s3://KEY:{SECRET}@bucket/data.zarr", f"nosuch://user:{SECRET}@host/data.zarr"]
    with dask.config.set({"dsoftmax.read-retries": 1}):
        for number, url in enumerate(urls):
            (folder := tmp_path / str(number)).mkdir()
            outputs(said_by(lambda url=url, folder=folder: DOORS[door](url, folder)))


def watched(client: Client) -> str:
    """Return all that a local cluster shows and logs: pages, logs of its processes, events."""
    client.sync(asyncio.sleep, 0)
    servers = {
        worker: info["services"] for worker, info in client.scheduler_info(-1)["workers"].items()
    }
    ports = [services["dashboard"] for services in servers.values() if "dashboard" in services]
    sites = [client.dashboard_link.removesuffix("/status")]
    sites += [f"http://127.0.0.1:{port}" for port in ports]
    pages = [
        "info/main/logs.html",
        "info/main/exceptions.html",
        "info/main/workers.html",
        "metrics",
    ]
    pages += [f"info/{page}/{quote(worker, safe='')}.html" for page in PAGES for worker in servers]
    said = [page for site in sites for path in pages if (page := fetched(f"{site}/{path}"))]
    assert any("Compute Failed" in page for page in said)
    said += [str(client.get_worker_logs()), str(client.get_scheduler_logs())]
    said += [str(client.get_worker_logs(nanny=True)), str(client.get_events())]
    said += [(client.cluster.folder / "log").read_text()]
    return "\n".join(said)


PAGES = ("logs", "worker", "call-stacks")


def fetched(url: str) -> str:
    """Return a page, or "" if the server has no such."""
    with suppress(HTTPError), urlopen(url, timeout=60) as answer:
        return str(answer.read().decode())
    return ""


@pytest.mark.usefixtures("quick_retries")
def test_a_fit_that_fails_on_a_cluster_shows_no_secret(
    site: Site, outputs: Callable[[str], None], cluster: Client
) -> None:
    with dask.config.set({"dsoftmax.read-retries": 1}):
        source = open_data(*(f"{site.by_password}/data.zarr/{name}" for name in "Xy"))
        site.statuses = {"X/c/1/0": 503}
        outputs(said := said_by(lambda: FIT.fit(source)))
        assert "cannot be read" in said
        site.statuses = {"": 500}
        outputs(said := said_by(lambda: FIT.fit(replace(source, X=replace(source.X, token="new")))))
        assert "not visible from the worker" in said
    outputs(watched(cluster))


@pytest.mark.slow
@pytest.mark.usefixtures("quick_retries", "checkpoint_always")
def test_nothing_that_runs_on_a_cluster_shows_a_secret(
    site: Site, outputs: Callable[[str], None], tmp_path: Path, cluster: Client
) -> None:
    callbacks = [JsonLines(tmp_path / "events.jsonl")]
    model = SoftmaxRegression(max_iter=2, tol=0, verbose=1, callbacks=callbacks)
    with dask.config.set({"dsoftmax.read-retries": 1}):
        for number, root in enumerate(roots(site)):
            X, y, out = f"{root}/X", f"{root}/y", f"{root}/p{number}"
            site.statuses = {}
            model.fit(X, y)
            opened, lazy = da.from_zarr(X), model.predict(X)
            site.statuses = {"X/c/1/0": 503}
            outputs(said := said_by(partial(model.fit, X, y)))
            assert "cannot be read" in said
            outputs(said_by(partial(model.fit, opened, DATA[1])))
            outputs(said_by(lazy.compute))
            site.statuses = {f"p{number}/c/1/0": 500}
            outputs(said := said_by(partial(model.predict_to, X, out)))
            assert "500" in said
    outputs(watched(cluster))
