"""A run as a TOML file, which replaces options of a command and sets any parameter of the model.

    [data]
    store = "train.zarr"
    [model]
    alpha = 1e-3
    [output]
    folder = "run"

Options on the command line override the file, which overrides the defaults. Paths are relative to
the folder in which the command runs.
"""

from __future__ import annotations

import tomllib
from collections.abc import Collection
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

import click

from dsoftmax.cli.model_options import PARAMETERS
from dsoftmax.cli.options import Command, PlacePath, is_given, values_of
from dsoftmax.errors import quoted, shortened
from dsoftmax.storage.credentials import public_url
from dsoftmax.storage.regular_files import require_regular

_META = "dsoftmax.run_file"
_MOST_BYTES = 1 << 20
# Parameters that have an option or a table of their own, or no meaning in a file.
_NOT_IN_A_FILE = ("callbacks", "verbose", "checkpoint", "warm_start")


class _Key(NamedTuple):
    """What a key of the file stands for.

    Attributes
    ----------
    name : of the command's parameter
    types : that the value may have
    is_path : whether it is a path or URL
    """

    name: str
    types: tuple[type, ...]
    is_path: bool = False


_PATH = ((str,), True)
_KEYS: dict[str, dict[str, _Key]] = {
    "data": {
        "store": _Key("data", *_PATH),
        "x": _Key("x", (str,)),
        "y": _Key("y", (str,)),
        "sample_weight": _Key("sample_weight", (str,)),
        "ignore_label": _Key("ignore_label", (str, int, float)),
        "drop_missing": _Key("drop_missing", (bool,)),
        "decode": _Key("decode", (bool,)),
        "dtype": _Key("dtype", (str,)),
        "validation": _Key("validation", *_PATH),
        "skip_bad_chunks": _Key("max_bad_chunks", (int,)),
    },
    "cluster": {
        "scheduler": _Key("scheduler", (str,)),
        "scheduler_file": _Key("scheduler_file", *_PATH),
        "certs": _Key("certs", *_PATH),
        "workers": _Key("workers", (int,)),
        "memory_limit": _Key("memory_limit", (str, int)),
        "threads_per_worker": _Key("threads_per_worker", (int,)),
    },
    "checkpoint": {"place": _Key("checkpoint", *_PATH)},
    "output": {
        "folder": _Key("run_folder", *_PATH),
        "model": _Key("model", *_PATH),
        "overwrite": _Key("overwrite", (bool,)),
        "plot": _Key("plot", *_PATH),
        "log": _Key("log", *_PATH),
    },
}


def config_option(command: Command) -> Command:
    """Add --config to a command that calls `model_parameters`."""
    return click.option(
        "--config",
        type=PlacePath(exists=True, dir_okay=False, path_type=Path),
        is_eager=True,  # read before the options whose defaults it replaces
        expose_value=False,
        callback=_read,
        help="Take what is not given here from this TOML file.",
    )(command)


def model_parameters() -> dict[str, Any]:
    """Return the parameters of the model that the file or the command line give."""
    meta = click.get_current_context().meta
    return {**meta.get(_META, {}), **values_of("model", given=True)}


def described_run() -> dict[str, Any]:
    """Return the content of a file that describes the run of the current command by itself."""
    ctx = click.get_current_context()
    # The cluster of the command line is left out: it may be gone tomorrow, and changes no bit.
    values = ctx.params | values_of("data")
    given = {name: value for name, value in values.items() if is_given(ctx, name)}
    values = {**(ctx.default_map or {}), **given}
    tables = {
        table: {name: _value(key, values) for name, key in keys.items()}
        for table, keys in _KEYS.items()
    }
    tables["model"] = model_parameters()
    known = {
        table: {name: value for name, value in content.items() if value is not None}
        for table, content in tables.items()
    }
    return {table: content for table, content in known.items() if content}


def _value(key: _Key, values: dict[str, Any]) -> Any:
    """Return the value of a key: of a path an absolute one, of a URL what is no secret."""
    value = values.get(key.name)
    if value is None or not key.is_path:
        return value
    return public_url(value) if "://" in str(value) else str(Path(value).absolute())


def _read(ctx: click.Context, parameter: click.Parameter, file: Path | None) -> None:
    """Have the values of the file replace the defaults of the options."""
    if file is None:
        return
    require_regular(file, _MOST_BYTES)
    try:
        content = tomllib.loads(file.read_text())
    except RecursionError:
        raise click.BadParameter(
            f"{file} nests values too deeply; a run file has tables of values", ctx, parameter
        ) from None
    except ValueError as error:  # no TOML, no UTF-8, or a number that is too long
        why = shortened(error)
        raise click.BadParameter(f"{file} is no TOML: {why}", ctx, parameter) from None
    ctx.default_map, ctx.meta[_META] = _checked(content, file)


def _checked(content: dict[str, Any], file: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the values by the name of the command's parameter, and the parameters of the model."""
    defaults = _model_defaults()
    values, parameters = {}, {}
    for table, entries in content.items():
        if not isinstance(entries, dict):
            raise click.UsageError(
                f"{file}: {shortened(table)} is outside of a table; {_suggest(table)}"
            )
        if table not in (*_KEYS, "model"):
            raise _unknown(file, f"the table {shortened(table)}", [*_KEYS, "model"], table)
        for key, value in entries.items():
            where = shortened(f"{table}.{key}")
            if table == "model":
                _require_known(file, where, key, [*defaults], PARAMETERS)
                _require_bool_for_bool(file, where, value, defaults[key])
                parameters[key] = value
            else:
                _require_known(file, where, key, [*_KEYS[table]], {})
                known_key = _KEYS[table][key]
                _require_type(file, where, value, known_key.types)
                values[known_key.name] = value
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
        raise click.UsageError(f"{file}: {where} is unknown; {_suggest(key)}")
    raise _unknown(file, where, known, key)


def _tables() -> dict[str, Collection[str]]:
    return {**_KEYS, "model": _model_defaults()}


def _suggest(key: str) -> str:
    """Return a hint in which table a key belongs."""
    paths = [f"{table}.{key}" for table, keys in _tables().items() if key in keys]
    return f"did you mean {paths[0]}?" if paths else f"the tables are {', '.join(_tables())}"


def _unknown(file: Path, where: str, known: Collection[str], key: str) -> click.UsageError:
    (nearest,) = get_close_matches(shortened(key), known, n=1, cutoff=0.0)
    return click.UsageError(
        f"{file}: {where} is unknown; did you mean {nearest}? (known: {', '.join(known)})"
    )


def _require_type(file: Path, where: str, value: Any, types: tuple[type, ...]) -> None:
    if type(value) not in types:
        expected = " or ".join(cls.__name__ for cls in types)
        raise click.UsageError(f"{file}: {where} is {quoted(value)}; expected {expected}")


def _require_bool_for_bool(file: Path, where: str, value: Any, default: Any) -> None:
    """Refuse a bool for a number and the reverse, which Python would allow and we would not notice.

    The estimator checks everything else.
    """
    if isinstance(value, bool) != isinstance(default, bool):
        expected = "true or false" if isinstance(default, bool) else "no true or false"
        raise click.UsageError(f"{file}: {where} is {quoted(value)}; expected {expected}")
