"""The one workaround for dask-ml: its searches over `partial_fit`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any


@contextmanager
def dask_ml_searches() -> Iterator[None]:
    """Let dask-ml's Hyperband, successive-halving and incremental searches run.

    In dask-ml 2025.1 they call `dask.persist` on the event loop of the client, which Dask refuses
    since 2025.3 ("Attempting to use an asynchronous Client in a synchronous context"). Within
    this context, that call is made again by the client's own method where it is refused. Where it
    is not, and in versions that do not make it, nothing is changed.

    Yields
    ------
    None

    Examples
    --------
    With an active `distributed.Client`, and Dask arrays X and y::

        from dask_ml.model_selection import HyperbandSearchCV

        with dask_ml_searches():
            HyperbandSearchCV(SoftmaxRegression(), params).fit(X, y, classes=[0, 1, 2])
    """
    from dask_ml.model_selection import _incremental

    used = getattr(_incremental, "dask", None)
    if used is None:
        yield
        return
    _incremental.dask = _Dask(used)
    try:
        yield
    finally:
        _incremental.dask = used


class _Dask(ModuleType):
    """The module `dask`, but that `persist` also works on the event loop."""

    def __init__(self, module: ModuleType) -> None:
        super().__init__(module.__name__)
        self._module = module

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)

    def persist(self, *collections: Any) -> Any:
        """Call `dask.persist`, or the client's where that is refused before anything is done."""
        from dsoftmax.runtime.connect import persisted

        try:
            return self._module.persist(*collections)
        except RuntimeError as error:
            if "asynchronous" not in str(error):
                raise
        return persisted(collections)
