"""Plug-ins that exit, raise or return the wrong thing: one sentence names the place."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from serving import Case, run

from sim.errors import InputError
from sim.inputs.plugins import REFUSED, explained
from sim.serve.policies import policy
from sim.serve.routing import router
from workloads.request import Request

CASE = Case(requests=tuple(Request(i, 0, 40, 3) for i in range(4)))
SCHEDULER = """
from sim.serve.policies import ChunkedPrefill, Work
class Mine(ChunkedPrefill):
    def plan(self, queue):
        {0}
"""
ROUTER = "def mine(request, replicas):\n    {0}\n"

# What a scheduler does in `plan`, and what the sentence says.
SCHEDULERS = {
    "return 1 / 0": "raised ZeroDivisionError: division by zero (NAME.py, line 5)",
    "raise SystemExit(0)": "raised SystemExit: 0 (NAME.py, line 5)",
    "raise SystemExit": "raised SystemExit (NAME.py, line 5)",
    "import sys; sys.exit('bye')": "raised SystemExit: bye (NAME.py, line 5)",
    "raise MemoryError": "raised MemoryError (NAME.py, line 5)",
    "return self.plan(queue)": "raised RecursionError",
    "raise GeneratorError": "raised NameError",
    "raise BaseException('x\\ny')": "raised BaseException: x y (NAME.py, line 5)",
    "import json; json.loads('{')": "raised JSONDecodeError",
    "return queue.missing": "raised AttributeError",
    "return None": "`plan` returned a NoneType, where a `Work` is needed (NAME.py, line 4)",
    "return 7": "`plan` returned a int, where a `Work` is needed",
    "return ([], False)": "`plan` returned a tuple, where a `Work` is needed",
    "return Work(None, False)": "a NoneType as a chunk",
    "return Work(5, False)": "a int as a chunk",
    "return Work([5], False)": "a int as a chunk",
    "return Work([(1, 2)], False)": "a tuple as a chunk",
    "return Work([], 'yes')": "whose `decode` is no bool",
    "return Work([], False, wake=0.5)": "whose `wake` is no int",
    "return Work([], True)": "decode = True, but `queue.take_decode()` said False",
    "return Work([(queue.waiting[0][1], 4)], False)": "which has no prompt left or is there twice",
    "live, n = queue.admit(8, entire=False); return Work([(live, n)] * 2, False)": "there twice",
    "live, n = queue.admit(8, entire=False); return Work([(live, 41)], False)": "which has 40 left",
    "live, n = queue.admit(8, entire=False); return Work([(live, 0)], False)": "chunk of 0 tokens",
    "live, n = queue.admit(8, entire=False); return Work([(live, -1)], False)": "a chunk of -1",
    "live, n = queue.admit(8, entire=False); return Work([(live, 8.0)], False)": "a chunk of 8.0",
    "live, n = queue.admit(8, entire=False); return Work([(live, 40)], False)": "blocks it did not",
    "return Work([], False)": "planned nothing",
}
ROUTERS = {
    "return 1 / 0": "raised ZeroDivisionError: division by zero (NAME.py, line 2)",
    "raise SystemExit(3)": "raised SystemExit: 3 (NAME.py, line 2)",
    "return None": "sent request 0 to replica None; there are 0 to 1 (NAME.py, line 1)",
    "return True": "sent request 0 to replica True",
    "return -1": "sent request 0 to replica -1",
    "return 2": "sent request 0 to replica 2",
    "return 0.0": "sent request 0 to replica 0.0",
    "return '0'": "sent request 0 to replica '0'",
    "return request.missing": "raised AttributeError",
}
# What a module does when it is imported.
MODULES = {
    "raise SystemExit(0)": "cannot be imported: it raised SystemExit: 0 (NAME.py, line 1)",
    "import sys\nsys.exit()": "cannot be imported: it raised SystemExit (NAME.py, line 2)",
    "x = = 3": "cannot be imported: it raised SyntaxError: invalid syntax (NAME.py, line 1)",
    "def f():\n    return 1 / 0\nf()": "ZeroDivisionError: division by zero (NAME.py, line 2)",
    "\x00": "cannot be imported: it raised",
    "raise BaseException": "cannot be imported: it raised BaseException (NAME.py, line 1)",
    "import no_such_library": "raised ModuleNotFoundError",
    "Mine = mine = 3": "is not a ",
    "pass": "cannot be imported: it raised AttributeError",
}
CLASSES = {
    "class Mine:\n    def __init__(self, x): pass\n    def plan(self, q): pass": "raised TypeError",
    "class Mine:\n    def __init__(self): 1 / 0\n    def plan(self, q): pass": "(NAME.py, line 2)",
    "class Mine: pass": "is not a class with a method `plan`",
    "class Mine: plan = 3": "is not a class with a method `plan`",
    "def Mine(): pass": "is not a class with a method `plan`",
}
_count = iter(range(10**6))


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))


def written(text: str) -> str:
    """A new module in the current folder, by its name."""
    name = f"plugin_{next(_count)}"
    Path(f"{name}.py").write_text(text)
    return name


@pytest.mark.parametrize("line", SCHEDULERS)
@pytest.mark.parametrize("pp", [1, 2])
def test_a_scheduler_that_goes_wrong_is_told(line: str, pp: int) -> None:
    name = written(SCHEDULER.format(line))
    with pytest.raises(InputError) as told:
        run(CASE.but(scheduler=f"{name}:Mine", pp=pp))
    assert f"{name}:Mine" in str(told.value)
    assert SCHEDULERS[line].replace("NAME", name) in str(told.value)


@pytest.mark.parametrize("line", ROUTERS)
def test_a_router_that_goes_wrong_is_told(line: str) -> None:
    name = written(ROUTER.format(line))
    with pytest.raises(InputError) as told:
        router(f"{name}:mine")(CASE.requests[0], [None, None])  # type: ignore[list-item]
    assert f"router '{name}:mine'" in str(told.value)
    assert ROUTERS[line].replace("NAME", name) in str(told.value)


@pytest.mark.parametrize("text", MODULES)
@pytest.mark.parametrize("load", [lambda n: policy(f"{n}:Mine"), lambda n: router(f"{n}:mine")])
def test_a_module_that_goes_wrong_is_told(text: str, load: object) -> None:
    name = written(text)
    with pytest.raises(InputError) as told:
        load(name)  # type: ignore[operator]
    assert MODULES[text].replace("NAME", name) in str(told.value)


@pytest.mark.parametrize("text", CLASSES)
def test_a_class_that_is_no_scheduler_is_told(text: str) -> None:
    name = written(text)
    with pytest.raises(InputError) as told:
        policy(f"{name}:Mine")
    assert CLASSES[text].replace("NAME", name) in str(told.value)


def test_refused_plug_ins_are_not_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    name = written("open('touched', 'w').close()")
    monkeypatch.setenv(REFUSED, "1")
    for load in (policy, router):
        with pytest.raises(InputError, match="plug-ins are refused here \\(--no-plugins\\)"):
            load(f"{name}:Mine")
    assert not Path("touched").exists()


@pytest.mark.parametrize("flags", [["--no-plugins"], []])
@pytest.mark.parametrize(
    "command",
    [
        ["serve"],
        pytest.param(["sweep", "--grid", "tp=1"], marks=pytest.mark.slow),
        pytest.param(["compare", "--tp", "2"], marks=pytest.mark.slow),
    ],
)
def test_commands_refuse_plug_ins(command: list[str], flags: list[str]) -> None:
    name = written("open('touched', 'w').close()\nraise SystemExit(0)")
    Path("s.toml").write_text(
        f'model = "gpt2"\non = "h100-sxm"\nscheduler = "{name}:Mine"\n'
        '[traffic]\narrivals = "poisson:1"\nnum_requests = 2\n'
    )
    done = subprocess.run(
        [sys.executable, "-m", "sim.cli.main", command[0], "s.toml", *command[1:], *flags],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    told = "plug-ins are refused" if flags else "cannot be imported: it raised SystemExit: 0"
    assert told in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert Path("touched").exists() != bool(flags)
    assert done.returncode == 2


class _Mute(Exception):
    """An error that cannot even say what it is."""

    def __str__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize("error", [_Mute(), GeneratorExit(), SystemExit(3)])
def test_whatever_a_plug_in_raises_is_named(error: BaseException) -> None:
    with pytest.raises(InputError, match=type(error).__name__), explained("scheduler", "my:One"):
        raise error
