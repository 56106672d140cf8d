"""Options of a command, built from the fields of records when the command runs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
import typer
from msgspec import NODEFAULT
from msgspec import inspect as fields
from typer.core import TyperCommand

from sim.cli.completion import machines, models, traces
from sim.cli.help import HelpfulCommand, flag, parameters
from sim.errors import InputError, quoted
from sim.inputs.explain import explained
from sim.inputs.plugins import refuse_plugins
from sim.inputs.settings import Setting, settings_of
from sim.output.folder import claimed
from workloads.numbers import decimal_number, whole_number

_PLUGINS = flag(
    "plugins",
    "--plugins/--no-plugins",
    help="Allow schedulers and routers that are Python code, module:name [default: plugins]",
    default=True,
    group="program",
)
T = TypeVar("T", bound=msgspec.Struct)
COMPLETED = {"on": machines, "device": machines, "model": models, "trace": traces}
OPEN = {"allow_extra_args": True, "ignore_unknown_options": True}  # of commands with every key
Flags = dict[str, Any]  # values of flags by field, nested as the records are
_NUMBERS: dict[type[fields.Type], Callable[[str], float]] = {
    fields.IntType: whole_number,
    fields.FloatType: decimal_number,
}
_SHOWN = {fields.IntType: "<int>", fields.FloatType: "<number>"}
_LISTS = (fields.ListType, fields.VarTupleType)


def with_options(*records: str) -> type[TyperCommand]:
    """A class of command that has the options of records, each named as `module:Class`.

    The records are imported when the command runs, so that other commands start without them.
    """

    class Command(HelpfulCommand):
        settings: dict[str, tuple[str, Setting]] | None = None  # parameter -> (record, setting)

        def get_params(self, ctx: Any) -> Any:
            if self.settings is None:
                loaded = [(name.partition(":")[2], s) for name in records for s in _options(name)]
                self.settings = {"__".join(s.path): (name, s) for name, s in loaded}
                own = [_parameter(setting) for _, setting in loaded]
                self.params = [*self.params, *parameters([*own, _PLUGINS])]
            return super().get_params(ctx)

        def invoke(self, ctx: Any) -> Any:
            if not ctx.params.pop(_PLUGINS.name, True):
                refuse_plugins()
            ctx.obj = {name.partition(":")[2]: {} for name in records}
            for parameter, (record, setting) in (self.settings or {}).items():
                value = ctx.params.pop(parameter, None)
                if value is not None and value not in ((), []):
                    if value == "" or (isinstance(value, list | tuple) and "" in value):
                        raise InputError(
                            f"--{setting.flag}: an empty value; give one, or leave the option out"
                        )
                    place = ctx.obj[record]
                    for step in setting.path[:-1]:
                        place = place.setdefault(step, {})
                    place[setting.path[-1]] = parse(setting, value)
            # A folder that cannot take the results is refused before any work is done.
            out = next((flags["out"] for flags in ctx.obj.values() if "out" in flags), None)
            with claimed(out):
                return super().invoke(ctx)

    return Command


def flags_of(context: typer.Context, record: type[msgspec.Struct]) -> Flags:
    """The given flags of a record of the command, nested as its fields are."""
    flags: Flags = context.obj[record.__name__]
    return flags


def record_of(context: typer.Context, record: type[T]) -> T:
    """A record of the command, from the given flags. Raises InputError."""
    from sim.inputs.documents import convert

    flags = context.obj[record.__name__]
    for setting in settings_of(record):
        required = setting.default is NODEFAULT and setting.help and len(setting.path) == 1
        if required and setting.path[0] not in flags:
            raise InputError(f"--{setting.flag} is missing: {setting.help}")
    return convert(flags, record, "command line")


def open_record_of(context: typer.Context, record: type[T], *more: str) -> T:
    """The options of a command that takes every key of a scenario as a flag, too: such flags become
    texts of `set`. `more`: words that stood in the place of an argument. Raises InputError."""
    from sim.studies.sweep.changes import from_flags

    flags = flags_of(context, record)
    flags["set"] = [*flags.get("set", ()), *from_flags([*more, *context.args])]
    return record_of(context, record)


def parse(setting: Setting, value: Any) -> Any:
    """The value of a flag as the record takes it. Raises InputError."""
    flag = f"--{setting.flag}"
    if isinstance(setting.info, fields.DictType):
        return list(value)  # KEY=VALUE texts: factors need the scenario that they change
    if isinstance(setting.info, fields.CustomType):
        return Path(value)
    if isinstance(setting.info, fields.TupleType):
        return span(value, flag)
    if isinstance(setting.info, _LISTS):
        number = _NUMBERS.get(type(setting.info.item_type))
        if number is None:
            return value
        parts = [part for text in value for part in text.split(",")]
        return _in_range([_number(part, number, flag) for part in parts], setting, ",".join(parts))
    number = _NUMBERS.get(type(setting.info))
    return _in_range(_number(value, number, flag) if number else value, setting, value)


def span(text: str, flag: str) -> tuple[float, float]:
    """`FROM:TO` in seconds. Raises InputError."""
    first, colon, last = text.partition(":")
    try:
        begin, end = decimal_number(first or "0"), decimal_number(last)
    except ValueError:
        begin = end = 0.0
    if not colon or not 0 <= begin < end:
        raise InputError(f"{flag} {quoted(text)}: write it as FROM:TO in seconds, e.g. 60:120")
    return begin, end


def _number(text: str, read: Callable[[str], float], flag: str) -> float:
    try:
        return read(text)
    except ValueError as error:
        raise InputError(f"{flag} {quoted(text)}: {error}") from None


def _in_range(value: Any, setting: Setting, written: Any) -> Any:
    """`value`, if the field takes it. Raises InputError."""
    try:
        msgspec.convert(value, setting.hint, strict=True)
    except msgspec.ValidationError as error:
        where = f"--{setting.flag} {quoted(written)}"
        raise InputError(explained(str(error), value, setting.hint, where)) from None
    return value


def _options(name: str) -> Iterator[Setting]:
    module, _, record = name.partition(":")
    settings = settings_of(getattr(import_module(module), record))
    # The model of a scenario is an argument; a field without a description is no option.
    return (s for s in settings if s.help and (s.path != ("model",) or s.default is not NODEFAULT))


def _values(setting: Setting) -> str:
    """What stands for the value in the help."""
    info = setting.info
    if isinstance(info, fields.LiteralType):
        return "|".join(map(str, info.values))
    if isinstance(info, fields.DictType) or setting.help.startswith("KEY="):
        return "KEY=VALUE"
    if isinstance(info, fields.TupleType):
        return "FROM:TO"
    return _SHOWN.get(type(info), "<text>")


def _parameter(setting: Setting) -> inspect.Parameter:
    """A setting as typer takes it. The value is None if the flag is not given."""
    info, flag, default = setting.info, setting.flag, setting.default
    names, shown, text = [f"--{flag}"], str(default), setting.help
    repeated = isinstance(info, (*_LISTS, fields.DictType))
    plain: Any = list[str] if repeated else str
    if isinstance(info, fields.BoolType):
        plain = bool
        names, shown = [f"--{flag}/--no-{flag}"], flag if default else f"no-{flag}"
    names += [f"--{alias}" for alias in setting.aliases]
    if setting.short:
        names.append(f"-{setting.short}")
    if default not in (None, NODEFAULT, "", ()):
        text = f"{text} [default: {shown}]"
    option = typer.Option(
        *names,
        help=text,
        metavar=None if plain is bool else _values(setting),
        show_default=False,
        rich_help_panel=setting.group or None,
        autocompletion=COMPLETED.get(setting.path[-1]),
    )
    return inspect.Parameter(
        "__".join(setting.path),
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[plain | None, option],
    )
