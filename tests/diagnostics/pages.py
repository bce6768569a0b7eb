"""The pages of a scheduler, and a quick fit for them to show."""

from __future__ import annotations

import urllib.request
from typing import Any

from distributed import Client

from dsoftmax import SoftmaxRegression


def fitted(path: str, **options: Any) -> SoftmaxRegression:
    return SoftmaxRegression(tol=0.1, **options).fit(f"{path}/X", f"{path}/y")


def board(client: Client) -> str:
    link: str = client.dashboard_link
    return link.removesuffix("/status")


def fetched(url: str) -> str:
    with urllib.request.urlopen(url, timeout=60) as answer:
        return str(answer.read().decode())
