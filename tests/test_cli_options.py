"""Options of commands, keys of files and axes of grids come from the fields of one record."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Annotated, Any

import msgspec
import pytest
import typer
from msgspec import Meta
from typer.testing import CliRunner

from sim.cli.app import app
from sim.cli.options import flags_of, with_options
from sim.cli.run import RunOutput
from sim.inputs.documents import convert, read_document
from sim.inputs.overlay import overlay
from sim.inputs.settings import settings_of
from sim.scenario import Scenario
from sim.serve.config import Serving
from sim.serve.session import ServeOutput
from sim.studies.sweep.axes import keys_of, parse_axis
from sim.studies.sweep.session import MapOptions, RecommendOptions, SweepOptions

# Parameters of a command that no scenario has, as they only concern what is printed and written.
OUTPUT = {
    "run": {
        "prefetch",
        "out",
        "format",
        "pictures",
        "report",
        "what-if",
        "save-scenario",
        "plugins",
    },
    "serve": {"out", "format", "pictures", "report", "trace-window", "plugins"},
}


class Storage(msgspec.Struct, frozen=True, kw_only=True):
    """A table with a knob that no part of the simulator knows."""

    disk_count: Annotated[int, Meta(gt=0, description="Disks per node")] = 4
    encrypted: Annotated[bool, Meta(description="Encrypt blocks")] = False
    lanes: Annotated[tuple[int, ...], Meta(description="Lanes per disk")] = ()


class Extended(Scenario, frozen=True, kw_only=True):
    """A scenario with that table and a field of its own."""

    storage: Storage = msgspec.field(default_factory=Storage)
    turbo_GHz: Annotated[float | None, Meta(description="Clock, in GHz", extra={"flag": "t"})] = (
        None
    )


def test_a_new_field_is_a_flag_a_key_and_an_axis(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = types.ModuleType("throwaway")
    module.Extended = Extended  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "throwaway", module)
    seen: list[Any] = []
    command = typer.Typer()

    @command.command(cls=with_options("throwaway:Extended"))
    def use(context: typer.Context, model: str) -> None:
        seen.append(overlay(model, flags_of(context, Extended), [], Extended))

    flags = ["--on", "t4", "--disk-count", "8", "--encrypted", "--t", "2.5", "--lanes", "1,2"]
    result = CliRunner().invoke(command, ["gpt2", *flags], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    scenario = convert(seen[0], Extended, "flags")
    assert scenario.storage == Storage(disk_count=8, encrypted=True, lanes=(1, 2))
    assert scenario.turbo_GHz == 2.5
    shown = CliRunner().invoke(command, ["--help"]).output
    assert "Disks per node [default: 4]" in shown

    file = tmp_path / "scenario.toml"
    file.write_text(
        'model = "gpt2"\non = "t4"\nturbo_GHz = 2.5\n'
        "[storage]\ndisk_count = 8\nencrypted = true\nlanes = [1, 2]\n"
    )
    assert convert(read_document(file), Extended, str(file)) == scenario

    keys = keys_of(Extended, {})
    for name in ("disk_count=1,2", "storage.disk_count=1,2"):
        axis = parse_axis(name, keys)
        assert (axis.path, axis.values) == (("storage", "disk_count"), (1, 2))
    assert parse_axis("t=1,2", keys).path == parse_axis("turbo_GHz=1,2", keys).path


RECORDS = (Scenario, Serving, RunOutput, ServeOutput, SweepOptions, MapOptions, RecommendOptions)


@pytest.mark.parametrize("record", RECORDS)
def test_every_field_says_what_it_is_and_has_a_flag_of_its_own(
    record: type[msgspec.Struct],
) -> None:
    settings = list(settings_of(record))
    assert [s.path for s in settings if not s.help] == []
    flags = [s.flag for s in settings]
    assert len(flags) == len(set(flags))


@pytest.mark.parametrize(("name", "record"), [("run", Scenario), ("serve", Serving)])
def test_every_flag_is_a_field_of_the_scenario_or_concerns_the_output(
    name: str, record: type[msgspec.Struct]
) -> None:
    group: Any = typer.main.get_command(app)
    command = group.commands[name]
    params = command.get_params(command.make_context(name, ["gpt2"]))
    flags = {p.opts[0].removeprefix("--") for p in params if p.opts[0].startswith("--")}
    fields = {s.flag for s in settings_of(record)} - {"model"}
    assert flags - {"help"} == fields | OUTPUT[name]
