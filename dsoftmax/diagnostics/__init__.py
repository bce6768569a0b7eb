"""What watches a run: each module a callback fed by events, or a view of its records."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dsoftmax.diagnostics.jsonlines import JsonLines
    from dsoftmax.diagnostics.judgement import plot_scores
    from dsoftmax.diagnostics.messages import as_message
    from dsoftmax.diagnostics.plot import plot_history

_HOME = {
    "JsonLines": "jsonlines",
    "as_message": "messages",
    "plot_history": "plot",
    "plot_scores": "judgement",
}

__all__ = ["JsonLines", "as_message", "plot_history", "plot_scores"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'dsoftmax.diagnostics' has no attribute {name!r}")
    return getattr(import_module(f"dsoftmax.diagnostics.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
