"""Axes, conditions and changes as they may be typed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from attacks.commands import COMMANDS, QUICK, TINY, Attempt

AXES = (
    *("", "=", "batch", "batch=", "=1", "batch=,", "batch=1,,2", "batch=nan", "batch=inf"),
    *("batch=1:inf:x2", "batch=１,２", "batch=1:1e9", "batch=1:9:x1", "batch=9:1", "batch=0:9:x2"),
    *("batch=1:2:+0", "nonsense=1", "batch=[", "batch=[1,", 'batch=[{"a":1}]', "stages=[[[1]]]"),
    *("batch=1e999", "hbm.nothing=1", "hbm.bandwidth_GBps=-1", "model.n_layer=0", "dtype=fp99"),
    *("batch=1:1000000:+1", "batch=1:600:+1|1", "batch=nan,1", "on=h100-sxm,$\\frac$"),
    *("batch=" + "1," * 5000, "batch=" + "x" * 5000, "on=/dev/zero", "model=../../../etc/passwd"),
)
CONDITIONS = (
    *("(", "batch >", "__import__('os').system('id')", "batch.__class__", "1/0", "batch ** 9 ** 9"),
    *(
        "9**9**9**9",
        "'a' * 10**10",
        "[x for x in y]",
        "lambda: 1",
        "batch if batch else 1",
        "nothing",
    ),
    *("1e999 > batch", "not " * 3000 + "batch", "(" * 3000, "batch = 1", "True", "batch; batch"),
    *("exec('1')", "{}", "batch @ 2", "batch << 10**9", "-" * 5000 + "1", "batch > '１'", "\x00"),
    *("status < 1", "batch + status > 1", "reason * 2 > 1"),
)
CHANGES = (
    *("", "=", "hbm", "hbm=", "=1", "hbm.bandwidth_GBps=nan", "hbm.bandwidth_GBps=inf", "a=1"),
    *("hbm.bandwidth_GBps=-1", "hbm.bandwidth_GBps=0", "hbm=1", "hbm.bandwidth_GBps=true"),
    *("hbm.bandwidth_GBps=１", "hbm.bandwidth_GBps=1e999", "hbm.bandwidth_GBps=" + "9" * 999),
    *("model.n_layer=-1", "model.n_layer=1.5", "model.n_layer=1e30", "model.nothing=1", "model.=1"),
    *("..=1", "hbm..x=1", "hbm.bandwidth_GBps.x=1", "x" * 5000 + "=1", "system.x=1", "device.x=1"),
    *("matrix.TFLOPS=1", "matrix.TFLOPS.bf16=0", "cores=0", "cores=1e12", "clock_GHz=-1", "\x1b=1"),
)
FACTORS = (
    *("batch=*0", "batch=*-1", "batch=*1e999", "batch=*nan", "batch=/0", "batch=-100%"),
    *("batch=+1e999%", "batch=*1.3", "hbm.bandwidth_GBps=*", "dtype=*2", "batch=*１", "on=*2"),
)


def expressions(folder: Path) -> Iterator[Attempt]:
    """Axes, conditions and changes as they may be typed."""
    sweep = ("sweep", *TINY, "--grid", "output=2", "--workers", "1", *QUICK)
    for text in AXES:
        yield Attempt(f"--grid {text[:30]!r}", (*sweep, f"--grid={text}"))
    for text in CONDITIONS:
        for flag in ("where", "having", "objective", "pareto"):
            words = (*COMMANDS["sweep"], f"--{flag}={text}")
            yield Attempt(f"--{flag} {text[:30]!r}", words)
    for text in CHANGES:
        for name in ("run", "serve", "sweep", "sensitivity"):
            yield Attempt(f"{name} --set {text[:30]!r}", (*COMMANDS[name], f"--set={text}"))
    for text in FACTORS:
        for name in ("compare", "sensitivity", "trend"):
            yield Attempt(f"{name} --set {text[:30]!r}", (*COMMANDS[name], f"--set={text}"))
