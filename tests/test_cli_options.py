"""Options of commands, keys of files and axes of grids come from the fields of one record."""

from __future__ import annotations

import csv
import json
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
from sim.errors import InputError
from sim.inputs.documents import convert, read_document
from sim.inputs.overlay import overlay
from sim.inputs.settings import settings_of
from sim.mapping.parallelism import Parallelism
from sim.scenario import Scenario
from sim.serve.config import RequestTraffic, Serving
from sim.serve.rate import plain, rate_of
from sim.serve.serving import serve
from sim.serve.session import ServeOutput
from sim.serve.source import RequestSource
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
        "json",
        "quiet",
    },
    "serve": {
        *("out", "format", "pictures", "report", "trace-window", "plugins", "json", "quiet"),
    },
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
        seen.append(overlay(model, flags_of(context, Extended), Extended))

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

    keys = keys_of(Extended)
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


CHANGES = ["--set", "batch=2", "--set", "hbm.bandwidth_GBps=*2", "--set", "launch.overhead_us=/2"]


def test_set_means_the_same_in_every_command(tmp_path: Path) -> None:
    """A scenario's key, and a number of the hardware by a factor."""
    base = ["gpt2", "--on", "h100-sxm", "--output", "2"]
    quick = ["--no-pictures", "--out"]
    ran = CliRunner().invoke(app, ["run", *base, *CHANGES, "--no-what-if", *quick, str(tmp_path)])
    assert ran.exit_code == 0, ran.output
    expected = json.loads((tmp_path / "summary.json").read_bytes())["makespan_ps"]
    swept = tmp_path / "sweep"
    words = ["sweep", *base, *CHANGES, "--grid", "tp=1", *quick, str(swept)]
    ran = CliRunner().invoke(app, words)
    assert ran.exit_code == 0, ran.output
    with (swept / "sweep.csv").open() as file:
        assert [int(row["makespan_ps"]) for row in csv.DictReader(file)] == [expected]
    words = ["compare", *base[:3], "--with", "output=2", *CHANGES, "--metric", "makespan"]
    ran = CliRunner().invoke(app, [*words, *quick, str(tmp_path / "compare")])
    assert ran.exit_code == 0, ran.output
    compared = json.loads((tmp_path / "compare" / "compare.json").read_bytes())
    assert compared["after"]["exact"] == f"{expected}/1"


def test_a_device_field_of_the_top_level_is_a_key_of_set() -> None:
    for key in ("cores=66", "device.cores=66"):
        words = ["run", "gpt2", "--on", "h100-sxm", "--output", "2", "--no-what-if", "--set", key]
        assert CliRunner().invoke(app, words).exit_code == 0


def test_rate_scales_a_trace_and_keeps_its_burstiness() -> None:
    traffic = RequestTraffic(trace="azure-conv-2023-sample", limit=200)
    own = rate_of(traffic)
    faster = msgspec.structs.replace(traffic, rate=2 * own)
    scaled = plain(Serving(model="gpt2", on="h100-sxm", traffic=faster)).traffic
    assert scaled.rate_scale == pytest.approx(2.0, rel=1e-12)
    slow, fast = (
        [q.arrival for q in RequestSource(one, 0, encoder=False)] for one in (traffic, scaled)
    )
    assert [abs(2 * b - a) <= 2 for a, b in zip(slow, fast, strict=True)].count(False) == 0
    with pytest.raises(InputError, match="give one"):
        plain(
            Serving(
                model="gpt2",
                on="h100-sxm",
                traffic=msgspec.structs.replace(faster, rate_scale=2.0),
            )
        )


def test_data_parallel_replicas_of_serving_are_replicas_of_the_router() -> None:
    traffic = RequestTraffic(arrivals="poisson:40", num_requests=30, output="fixed:4")
    base = Serving(model="gpt2", on="hgx-h100", traffic=traffic)
    split = msgspec.structs.replace(base, parallelism=Parallelism(dp=3))
    copies = msgspec.structs.replace(base, replicas=3)
    a, b = serve(split), serve(copies)
    assert a.requests.frame().equals(b.requests.frame())
    assert a.serving == b.serving
