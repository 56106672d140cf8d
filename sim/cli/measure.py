"""`memorywall measure`: time the kernels of this machine."""

from __future__ import annotations

import msgspec
import typer

from sim.cli.options import record_of


def measure(context: typer.Context) -> None:
    """Time kernels on this machine, for `validate` and `calibrate`, in under ten minutes."""
    from sim.fidelity.measure.plan import MeasurementPlan
    from sim.fidelity.measure.session import measure
    from sim.output.terminal import print_document, terminal

    console = terminal()
    plan = record_of(context, MeasurementPlan)
    done = measure(plan, console.print)
    console.print(
        f"  {done.measured} kernels measured in {done.seconds:.0f} s, {done.known} were known"
        + (f", {done.left_out} left out (too large or too slow)" if done.left_out else "")
    )
    if done.interrupted:
        console.print("  interrupted: the results so far are kept; the same command continues")
    if done.file.is_file():
        console.print(
            f"  memorywall calibrate {plan.out}/kernels --device {done.file}   # fits its terms"
        )
    print_document("measure", lambda: {**msgspec.structs.asdict(done), "file": str(done.file)})
    if done.interrupted:
        raise KeyboardInterrupt
