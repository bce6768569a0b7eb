"""What watches a run: callbacks that get its events, and plots and pages of its records."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dsoftmax.diagnostics.history import JsonLines, as_message
    from dsoftmax.diagnostics.history_plot import plot_history
    from dsoftmax.diagnostics.scores_plot import plot_scores

_MODULES = {
    "JsonLines": "history",
    "as_message": "history",
    "plot_history": "history_plot",
    "plot_scores": "scores_plot",
}

__all__ = ["JsonLines", "as_message", "plot_history", "plot_scores"]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'dsoftmax.diagnostics' has no attribute {name!r}")
    return getattr(import_module(f"dsoftmax.diagnostics.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
