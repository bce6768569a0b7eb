"""What watches a run: each module a callback fed by events, or a view of its records."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dsoftmax.diagnostics.plot import plot_history

__all__ = ["plot_history"]


def __getattr__(name: str) -> Any:
    if name != "plot_history":
        raise AttributeError(f"module 'dsoftmax.diagnostics' has no attribute {name!r}")
    from dsoftmax.diagnostics.plot import plot_history

    return plot_history


def __dir__() -> list[str]:
    return sorted(__all__)
