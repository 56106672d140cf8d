"""`memorywall models|devices|systems list|show`."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from typing import Annotated

import typer

from sim.cli.help import HelpfulCommand, HelpfulGroup


def catalogue_app(kind: str) -> typer.Typer:
    """The `list` and `show` commands of one part of the catalogue."""
    app = typer.Typer(
        cls=HelpfulGroup,
        help=f"The {kind}s of the catalogue.",
        invoke_without_command=True,
    )

    @app.callback()
    def default(ctx: typer.Context) -> None:
        if ctx.invoked_subcommand is None:
            list_them()

    @app.command("list", cls=HelpfulCommand)
    def list_them() -> None:
        """List them in a table."""
        print_table(f"{kind}s", *TABLES[kind]())

    @app.command(cls=HelpfulCommand)
    def show(
        name: Annotated[str, typer.Argument(help="A name of the catalogue, or a file")],
    ) -> None:
        """Show one with all its numbers and their sources."""
        from sim.errors import printable
        from sim.output.terminal import print_document, terminal

        load(kind, name)
        console, text = terminal(), printable(text_of(kind, name).rstrip())
        for line in (*text.splitlines(), *(f"# {line}" for line in DERIVED[kind](name))):
            console.out(line, highlight=False)
        print_document(kind, lambda: {"name": name, "text": text})

    return app


def text_of(kind: str, name: str) -> str:
    """The TOML of an entry; of `4xl40s` the one that stands for it."""
    from sim.inputs.catalogue import locate, machine_document

    if kind == "system":
        document, path = machine_document(name)
        if not path.is_file():
            import tomli_w

            return tomli_w.dumps(document)
    return locate(kind, name).read_text(encoding="utf-8")


def load(kind: str, name: str) -> object:
    """Load an entry, so that a broken one is refused before it is shown."""
    from sim.inputs import catalogue

    loaders: dict[str, Callable[[str], object]] = {
        "model": catalogue.load_model,
        "device": catalogue.load_device,
        "system": catalogue.load_machine,
    }
    return loaders[kind](name)


def print_table(kind: str, heads: list[str], lines: list[list[str]]) -> None:
    """A table for the terminal: words to the left, numbers to the right; with --json its rows."""

    from sim.output.terminal import FoldingTable, print_document, terminal

    table = FoldingTable()
    for i, head in enumerate(heads):
        words = i == 0 or not any(line[i][:1].isdigit() for line in lines)
        table.add_column(head, justify="left" if words else "right", no_wrap=True)
    for line in lines:
        table.add_row(*line)
    terminal().print(table)
    names = [re.sub(r"\W+", "_", head).strip("_") for head in heads]
    rows = [dict(zip(names, map(_plain, line), strict=True)) for line in lines]
    print_document(kind, lambda: {"rows": rows})


def _plain(cell: str) -> str | int | float | None:
    """A cell as data: a number where it is one, None where it is empty."""
    digits = cell.replace(",", "")
    for number in (int, float):
        with suppress(ValueError):
            return number(digits)
    return cell or None


def _models() -> tuple[list[str], list[list[str]]]:
    from sim.inputs.catalogue import catalogue, load_model
    from workloads.counts import active_parameters, kv_bytes_per_token, parameters

    lines = []
    for name in catalogue("model"):
        m = load_model(name)
        stack = m.decoder or m.encoder
        assert stack is not None
        attention = stack.layers[0].attention
        kv = kv_bytes_per_token(m, 16) if m.decoder else 0
        total, active = parameters(m), active_parameters(m)
        lines.append(
            [
                name,
                m.architecture,
                f"{total / 1e9:.3f}",
                f"{active / 1e9:.3f}" if active != total else "",
                str(m.num_layers),
                str(m.hidden),
                f"{attention.heads}/{attention.kv_heads}" if not attention.latent else "MLA",
                f"{kv / 1024:.0f}" if kv else "",
            ]
        )
    heads = ["model", "architecture", "params, B", "active, B", "layers", "width", "heads/KV"]
    return [*heads, "KV KiB/token"], lines


def _devices() -> tuple[list[str], list[list[str]]]:
    from sim.inputs.catalogue import catalogue, load_device

    lines = []
    for name in catalogue("device"):
        d = load_device(name)
        best = {k: v for k, v in d.matrix.TFLOPS.items() if k in ("bf16", "fp16", "fp8", "int8")}
        sixteen = d.matrix.TFLOPS.get("bf16") or d.matrix.TFLOPS.get("fp16")
        rate = sixteen or max(d.matrix.TFLOPS.values())
        lines.append(
            [
                name,
                f"{sixteen:g}" if sixteen else "",
                f"{best['fp8']:g}" if "fp8" in best else "",
                f"{best['int8']:g}" if "int8" in best else "",
                f"{d.hbm.capacity_GB:g}",
                f"{d.hbm.bandwidth_GBps:g}",
                f"{d.reuse_capacity / 2**20:.4g}",
                f"{rate * 1e3 / d.hbm.bandwidth_GBps:.0f}",
            ]
        )
    heads = ["device", "16-bit TFLOP/s", "fp8", "int8", "GB", "GB/s", "chip MiB"]
    return [*heads, "FLOP/byte"], lines


def _systems() -> tuple[list[str], list[list[str]]]:
    from sim.inputs.catalogue import catalogue, load_machine

    lines = []
    for name in catalogue("system"):
        m = load_machine(name)
        rates = sorted({link.bandwidth_GBps for link in m.system.links}, reverse=True)
        lines.append(
            [
                name,
                f"{len(m.system.devices)} x {m.device.name}",
                str(len(m.system.links)),
                ", ".join(f"{r:g}" for r in rates),
            ]
        )
    return ["system", "devices", "links", "GB/s per link and direction"], lines


def _derived_model(name: str) -> list[str]:
    from sim.inputs.catalogue import load_model
    from workloads.counts import kv_bytes_per_token, parameters

    m = load_model(name)
    lines = [f"parameters: {parameters(m):,}"]
    if m.decoder:
        lines.append(f"KV cache: {kv_bytes_per_token(m, 16):,} bytes per token at 16 bit")
    return lines


def _derived_device(name: str) -> list[str]:
    from sim.inputs.catalogue import load_device

    d = load_device(name)
    return [
        f"{dtype}: {rate * 1e12 / d.hbm.bandwidth:.0f} FLOP per byte to be compute-bound"
        for dtype, rate in d.matrix.TFLOPS.items()
    ]


def _derived_system(name: str) -> list[str]:
    from sim.inputs.catalogue import load_machine

    m = load_machine(name)
    nodes = [*m.system.devices, *m.system.switches]
    return [
        f"nodes: {', '.join(nodes)}",
        *(f"{x.a} - {x.b}: {x.bandwidth_GBps:g} GB/s, {x.latency_us:g} us" for x in m.system.links),
    ]


TABLES = {"model": _models, "device": _devices, "system": _systems}
DERIVED = {"model": _derived_model, "device": _derived_device, "system": _derived_system}
