"""The page in a real browser, opened while a fit is under way."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from distributed import Client
from sklearn.exceptions import ConvergenceWarning

from dsoftmax import SoftmaxRegression, SoftmaxRegressionCV
from dsoftmax.diagnostics.runs import TOPIC
from dsoftmax.diagnostics.scheduler_report import public, reporting
from dsoftmax.diagnostics.style import BLUE, GREY, INK
from dsoftmax.events import CandidatesJudged, Event, PassEnded
from tests.diagnostics.sample_events import ALL, STARTED

BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
WAIT_SECONDS = 60

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("small_spans"),
    pytest.mark.skipif(not (BROWSER and DRIVER), reason="needs chromium and chromedriver"),
]

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1400,1000",
)
PASSES = "return [...Bokeh.documents[0].get_model_by_name('passes-data').get_column(arguments[0])]"
CANDIDATES = PASSES.replace("passes-data", "candidates-data")
VISIBLE = "return Bokeh.documents[0].get_model_by_name(arguments[0]).visible"
STATUS = "return Bokeh.documents[0].get_model_by_name('status').text"
CARDS = "return Bokeh.documents[0].get_model_by_name('cards').text"
READY = "return window.Bokeh !== undefined && Bokeh.documents.length == 1"
DRAWN = "return Bokeh.documents[0].is_idle"
LINKS = "return [...document.querySelectorAll('.navbar a')].map(a => a.getAttribute('href'))"


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Any]:
    webdriver = pytest.importorskip("selenium.webdriver")
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = str(BROWSER)
    for flag in (*FLAGS, f"--user-data-dir={tmp_path / 'profile'}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
    yield driver
    driver.quit()


class Visitor:
    """Opens the page after the first pass, and looks at it again after some more."""

    def __init__(self, browser: Any, url: str) -> None:
        self.browser, self.url = browser, url
        self.seen: list[list[float]] = []

    def on_event(self, event: Event) -> None:
        if not isinstance(event, PassEnded) or event.passes not in (1, 3, 5):
            return
        if event.passes == 1:
            self.browser.get(self.url)
            self.wait_until(lambda: self.browser.execute_script(READY))
        self.wait_until(lambda: len(self.passes("pass")) >= event.passes)
        self.seen.append(self.passes("loss"))

    def passes(self, key: str) -> list[float]:
        found: list[float] = self.browser.execute_script(PASSES, key)
        return found

    def wait_until(self, holds: Callable[[], bool]) -> None:
        from selenium.webdriver.support.wait import WebDriverWait

        WebDriverWait(self.browser, WAIT_SECONDS).until(lambda _: holds())


def test_a_browser_sees_the_numbers_of_a_fit_move(
    browser: Any,
    cluster: Client,
    digits: tuple[np.ndarray, np.ndarray],
    store: Callable[..., str],
    tmp_path: Path,
) -> None:
    path = store(200, X=digits[0], y=digits[1])
    visitor = Visitor(browser, cluster.dashboard_link.replace("/status", "/dsoftmax"))
    model = SoftmaxRegression(tol=0, max_iter=7, callbacks=[visitor])
    X_val, y_val = digits[0][:300], digits[1][:300]
    with pytest.warns(ConvergenceWarning, match="budget"):
        model.fit(f"{path}/X", f"{path}/y", X_val=X_val, y_val=y_val)

    losses = [record["loss"] for record in model.history_ if record["kind"] == "pass"]
    assert [seen == losses[: len(seen)] for seen in visitor.seen] == [True] * 3
    assert [len(seen) for seen in visitor.seen] == [1, 3, 5]
    visitor.wait_until(lambda: len(visitor.passes("pass")) == 7)
    for key in ("pass", "loss", "gradient_norm", "accuracy", "validation_loss"):
        assert visitor.passes(key) == [r[key] for r in model.history_ if r["kind"] == "pass"]
    visitor.wait_until(lambda: f"{losses[-1]:.6f}" in browser.execute_script(CARDS))
    assert "dsoftmax" in browser.execute_script(LINKS)

    visitor.wait_until(lambda: browser.execute_script(DRAWN))
    assert is_a_picture(browser.get_screenshot_as_png())
    assert [line for line in browser.get_log("browser") if line["level"] == "SEVERE"] == []


class Looker(Visitor):
    """Opens the page when a search is under way, and waits until it shows how that stands."""

    def on_event(self, event: Event) -> None:
        if not isinstance(event, CandidatesJudged) or not any(event.running):
            return
        if not self.seen:
            self.browser.get(self.url)
            self.wait_until(lambda: self.browser.execute_script(READY))
        losses = list(event.losses)
        self.wait_until(lambda: self.browser.execute_script(CANDIDATES, "loss") == losses)
        self.seen.append(losses)


def test_a_browser_sees_the_candidates_of_a_search_move_and_go(
    browser: Any,
    cluster: Client,
    digits: tuple[np.ndarray, np.ndarray],
    store: Callable[..., str],
) -> None:
    path = store(200, X=digits[0], y=digits[1])
    looker = Looker(browser, cluster.dashboard_link.replace("/status", "/dsoftmax"))
    model = SoftmaxRegressionCV(
        alphas=[0.0, 1e-2, 1.0, 1e3], cv=3, random_state=0, callbacks=[looker]
    ).fit(f"{path}/X", f"{path}/y")
    assert len(looker.seen) >= 2
    assert looker.seen[0] != looker.seen[-1]
    looker.wait_until(lambda: "ended" in browser.execute_script(STATUS))
    shown = {key: browser.execute_script(CANDIDATES, key) for key in ("alpha", "loss", "color")}
    assert shown["alpha"] == model.alphas_.tolist()
    assert np.allclose(shown["loss"], -model.scores_.mean(axis=0)[0], rtol=1e-12)
    lost = [color == GREY for color in shown["color"]]
    assert any(lost)
    assert lost[model.alphas_.tolist().index(model.alpha_)] is False
    assert "best alpha" in browser.execute_script(CARDS)
    looker.wait_until(lambda: browser.execute_script(DRAWN))
    assert browser.execute_script(VISIBLE, "candidates")
    assert not browser.execute_script(VISIBLE, "gradient_norm")
    chart = browser.find_elements("css selector", "#charts > div")[1].screenshot_as_png
    assert min(count(color, chart) for color in (GREY, BLUE, INK)) > 20
    assert [line for line in browser.get_log("browser") if line["level"] == "SEVERE"] == []


def is_a_picture(png: bytes) -> bool:
    """Return whether a screenshot has the lines and the bars of the charts."""
    loss, validation, gradient, rate = "#2f6db3", "#e5a04b", "#2c8a63", "#8793a3"
    return min(count(color, png) for color in (loss, validation, gradient, rate)) > 100


def count(color: str, png: bytes) -> int:
    """Return how many pixels of a screenshot have a color."""
    import io

    from matplotlib.colors import to_rgb
    from matplotlib.image import imread

    pixels = imread(io.BytesIO(png))[..., :3]
    return int((np.abs(pixels - np.array(to_rgb(color))).max(axis=-1) < 0.01).sum())


MARK = "document.body.dataset.owned='1'"
ATTACK = f'<img src=x onerror="{MARK}"><script>{MARK}</script>'
OWNED = "return document.body.dataset.owned || document.querySelectorAll('img[src=x]').length"


def test_markup_in_the_name_or_the_solver_of_a_run_is_text_in_a_browser(
    browser: Any, cluster: Client
) -> None:
    visitor = Visitor(browser, cluster.dashboard_link.replace("/status", "/dsoftmax"))
    with reporting(cluster, "run"):
        facts = public(STARTED) | {"solver": ATTACK}
        messages = [facts, *(public(event) for event in ALL[1:])]
        cluster.log_event(TOPIC, {"run": ATTACK, "client": cluster.id, "messages": messages})
    browser.get(visitor.url)
    visitor.wait_until(lambda: browser.execute_script(READY))
    visitor.wait_until(lambda: browser.execute_script(DRAWN))
    visitor.wait_until(lambda: "onerror" in browser.execute_script(CHOICES))
    assert not browser.execute_script(OWNED)


CHOICES = "return JSON.stringify(Bokeh.documents[0].get_model_by_name('choice').options)"
