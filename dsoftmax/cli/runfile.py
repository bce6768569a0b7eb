"""A run as a TOML file: what a command's options would say, and every parameter of the model.

    [data]
    store = "train.zarr"
    [model]
    alpha = 1e-3
    [output]
    folder = "run"

Options on the command line come before the file, the file before the defaults. Paths are relative
to where the command runs.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Collection
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

import click
from click.core import ParameterSource

from dsoftmax.cli.model import OPTION_NAMES, given_parameters

_META = "dsoftmax.runfile"
_NOT_IN_A_FILE = ("callbacks", "verbose", "checkpoint", "warm_start")


class _Key(NamedTuple):
    """What a key of the file stands for.

    Attributes
    ----------
    name : of the command's parameter
    kinds : types of TOML that it may have
    is_path : whether it is a path or URL
    """

    name: str
    kinds: tuple[type, ...]
    is_path: bool = False


_PLACE = ((str,), True)
_KEYS: dict[str, dict[str, _Key]] = {
    "data": {
        "store": _Key("data", *_PLACE),
        "x": _Key("x", (str,)),
        "y": _Key("y", (str,)),
        "sample_weight": _Key("sample_weight", (str,)),
        "ignore_label": _Key("ignore_label", (str, int, float)),
        "drop_missing": _Key("drop_missing", (bool,)),
        "dtype": _Key("dtype", (str,)),
        "validation": _Key("validation", *_PLACE),
        "skip_bad_chunks": _Key("max_bad_chunks", (int,)),
    },
    "cluster": {
        "scheduler": _Key("scheduler", (str,)),
        "scheduler_file": _Key("scheduler_file", *_PLACE),
        "certs": _Key("certs", *_PLACE),
        "workers": _Key("workers", (int,)),
        "memory_limit": _Key("memory_limit", (str, int)),
    },
    "checkpoint": {"place": _Key("checkpoint", *_PLACE)},
    "output": {
        "folder": _Key("run_folder", *_PLACE),
        "model": _Key("model", *_PLACE),
        "overwrite": _Key("overwrite", (bool,)),
        "plot": _Key("plot", *_PLACE),
        "log": _Key("log", *_PLACE),
    },
}


def config_option(command: Callable[..., None]) -> Callable[..., None]:
    """Add --config to a command that calls `model_parameters`."""
    return click.option(
        "--config",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        is_eager=True,
        expose_value=False,
        callback=_read,
        help="Take what is not given here from this TOML file.",
    )(command)


def model_parameters() -> dict[str, Any]:
    """Return the parameters of the model that the file or the command line give."""
    meta = click.get_current_context().meta
    return {**meta.get(_META, {}), **given_parameters()}


def described_run() -> dict[str, Any]:
    """Return what a file would hold that describes the run of the current command on its own."""
    ctx = click.get_current_context()
    tables: dict[str, dict[str, Any]] = {}
    for table, keys in _KEYS.items():
        # Where it runs changes no bit, and a cluster on the command line may be gone tomorrow.
        options = table != "cluster"
        given = {key: _given(ctx, what, options=options) for key, what in keys.items()}
        tables[table] = {key: value for key, value in given.items() if value is not None}
    parameters = {key: value for key, value in model_parameters().items() if value is not None}
    tables["model"] = parameters
    return {table: keys for table, keys in tables.items() if keys}


def _given(ctx: click.Context, key: _Key, *, options: bool) -> Any:
    if options and ctx.get_parameter_source(key.name) is ParameterSource.COMMANDLINE:
        value = ctx.params[key.name]
    else:
        value = (ctx.default_map or {}).get(key.name)
    if value is None or not key.is_path:
        return value
    return str(value) if "://" in str(value) else str(Path(value).absolute())


def _read(ctx: click.Context, parameter: click.Parameter, file: Path | None) -> None:
    """Have the file's values take the place of the defaults of the options."""
    if file is None:
        return
    try:
        content = tomllib.loads(file.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise click.BadParameter(f"{file} is no TOML: {error}", ctx, parameter) from None
    ctx.default_map, ctx.meta[_META] = _checked(content, file)


def _checked(content: dict[str, Any], file: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the values by the command's parameter, and the parameters of the model."""
    defaults = _model_defaults()
    values, parameters = {}, {}
    for table, keys in content.items():
        if not isinstance(keys, dict):
            raise click.UsageError(f"{file}: {table} is outside of a table; {_home_of(table)}")
        if table not in (*_KEYS, "model"):
            raise _unknown(file, f"the table {table}", [*_KEYS, "model"], table)
        for key, value in keys.items():
            where = f"{table}.{key}"
            if table == "model":
                _require_known(file, where, key, [*defaults], OPTION_NAMES)
                _require_truth_for_truth(file, where, value, defaults[key])
                parameters[key] = value
            else:
                _require_known(file, where, key, [*_KEYS[table]], {})
                what = _KEYS[table][key]
                _require_kind(file, where, value, what.kinds)
                values[what.name] = value
    return values, parameters


def _model_defaults() -> dict[str, Any]:
    from dsoftmax.estimators.classifier import SoftmaxRegression
    from dsoftmax.estimators.classifier_cv import SoftmaxRegressionCV

    estimators = (SoftmaxRegressionCV(), SoftmaxRegression())
    parameters = {k: v for each in estimators for k, v in each.get_params(deep=False).items()}
    return {name: default for name, default in parameters.items() if name not in _NOT_IN_A_FILE}


def _require_known(
    file: Path, where: str, key: str, known: list[str], other_names: dict[str, str]
) -> None:
    if key in known:
        return
    if key in other_names:
        raise click.UsageError(f"{file}: {where} is unknown; did you mean {other_names[key]}?")
    if any(key in keys for keys in _tables().values()):
        raise click.UsageError(f"{file}: {where} is unknown; {_home_of(key)}")
    raise _unknown(file, where, known, key)


def _tables() -> dict[str, Collection[str]]:
    return {**_KEYS, "model": _model_defaults()}


def _home_of(key: str) -> str:
    """Return a hint where a key belongs."""
    homes = [f"{table}.{key}" for table, keys in _tables().items() if key in keys]
    return f"did you mean {homes[0]}?" if homes else f"the tables are {', '.join(_tables())}"


def _unknown(file: Path, where: str, known: Collection[str], key: str) -> click.UsageError:
    (nearest,) = get_close_matches(key, known, n=1, cutoff=0.0)
    return click.UsageError(
        f"{file}: {where} is unknown; did you mean {nearest}? (known: {', '.join(known)})"
    )


def _require_kind(file: Path, where: str, value: Any, kinds: tuple[type, ...]) -> None:
    if type(value) not in kinds:
        expected = " or ".join(kind.__name__ for kind in kinds)
        raise click.UsageError(f"{file}: {where} is {value!r}; expected {expected}")


def _require_truth_for_truth(file: Path, where: str, value: Any, default: Any) -> None:
    """Refuse what Python would take for something else; the estimator checks all the rest."""
    if isinstance(value, bool) != isinstance(default, bool):
        expected = "true or false" if isinstance(default, bool) else "no true or false"
        raise click.UsageError(f"{file}: {where} is {value!r}; expected {expected}")
