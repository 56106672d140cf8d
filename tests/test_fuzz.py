"""Files and flags that are wrong in any way: one clear sentence or a right answer, nothing else."""

from __future__ import annotations

import copy
import json
import math
import tempfile
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import SOURCE

from sim import MemorywallError, Parallelism, Result, Scenario, Workload, run
from sim.inputs.catalogue import (
    Machine,
    catalogue,
    load_device,
    load_machine,
    load_model,
    parse_change,
)
from sim.scenario import load_scenario, resolve, save_scenario
from workloads import counts
from workloads.block import Lowering
from workloads.model import Model

# Values ----------------------------------------------------------------------------------

numbers = st.one_of(
    st.sampled_from([0, -1, 1, 2, 7, 2**31, 2**31 + 1, 2**63, 2**64, 10**30, -(10**400), 10**400]),
    st.sampled_from([math.nan, math.inf, -math.inf, -0.0, 1e-300, 1e300, 0.5, 1e15]),
    st.integers(),
    st.floats(),
)
words = st.one_of(
    st.sampled_from(["", "bf16", "gpu", "a" * 300, "../x", "\x00", "gpt2", "h100-sxm", "1", "é"]),
    st.text(max_size=8),
)
scalars = st.one_of(st.none(), st.booleans(), numbers, words)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(words, inner, max_size=3)),
    max_leaves=6,
)


def nested(depth: int) -> Any:
    inner: Any = 1
    for level in range(depth):
        inner = [inner] if level % 2 else {"a": inner}
    return inner


Path_ = tuple[Any, ...]


def places(document: Any, at: Path_ = ()) -> list[Path_]:
    """Every key and index of a document, from the top down."""
    inside = document.items() if isinstance(document, dict) else enumerate(document)
    found: list[Path_] = []
    for key, value in inside:
        found.append((*at, key))
        if isinstance(value, dict | list):
            found += places(value, (*at, key))
    return found


@st.composite
def mutated(draw: st.DrawFn, base: dict[str, Any]) -> dict[str, Any]:
    """`base` with one to three keys gone, renamed, doubled or with another value."""
    document = copy.deepcopy(base)
    for _ in range(draw(st.integers(1, 3))):
        known = places(document)
        if not known:
            break
        *path, last = draw(st.sampled_from(known))
        holder: Any = document
        for key in path:
            holder = holder[key]
        number = type(holder[last]) in (int, float) and abs(holder[last]) < 1e200
        ways = ["scale"] * 6 if number else ["swap", "swap", "delete", "rename"]
        how = draw(st.sampled_from([*ways, "delete", "rename", "replace", "swap", "nest"]))
        if how == "delete":
            del holder[last]
        elif how == "rename" and isinstance(holder, dict):
            holder[draw(words)] = holder.pop(last)
        elif how == "rename":
            holder.append(copy.deepcopy(holder[last]))
        elif how == "nest":
            holder[last] = nested(draw(st.sampled_from([1, 5, 60])))
        elif how == "scale":
            holder[last] *= draw(st.sampled_from([2, 0.5, 3, 2.0, 1e9, 10**12, -1, 0]))
        elif how == "swap":
            holder[last] = draw(scalars)
        else:
            holder[last] = draw(values)
    return document


def toml(value: Any) -> str:
    """Inline TOML, which says what JSON says; None has no word there."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{toml(k)} = {toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else ("inf" if value > 0 else "-inf")
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def document_bytes(document: dict[str, Any], suffix: str) -> bytes:
    if suffix == ".json":
        text = json.dumps(document)
    else:
        text = "\n".join(f"{toml(k)} = {toml(v)}" for k, v in document.items())
    return text.encode("utf-8", "surrogatepass")


@st.composite
def damaged(draw: st.DrawFn, text: bytes) -> bytes:
    """A valid file with some bytes cut out or put in."""
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(text)))
        cut = draw(st.integers(0, 20))
        put = draw(
            st.one_of(
                st.binary(max_size=6),
                st.sampled_from([b"\xff\xfe", b"[" * 5000, b'{"a":' * 5000, b"9" * 5000, b"\x00"]),
                st.sampled_from([b"[a]\n", b"a.b=1\n", b"[[tiers]]\n", b"1979-05-27", b"1e999"]),
            )
        )
        text = text[:at] + put + text[at + cut :]
    return text


def is_a_sentence(error: MemorywallError, about: str = "") -> None:
    text = str(error)
    assert text.strip()
    assert about in text
    assert "\n" not in text.strip()
    assert len(text) < 2000


def outcome(content: bytes, name: str, load: Callable[[str], Any]) -> Any:
    """What `load` makes of a file: an object, or None after an error that names the file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        try:
            return load(str(path))
        except MemorywallError as error:
            is_a_sentence(error, about=name)
            return None


def read_toml(path: Path) -> dict[str, Any]:
    return tomllib.loads(path.read_text("utf-8"))


def samples(kind: str, names: str) -> dict[str, dict[str, Any]]:
    return {name: read_toml(catalogue(kind)[name]) for name in names.split()}


# Files -----------------------------------------------------------------------------------

MODELS = samples(
    "model",
    "bert-base roberta-base gpt2 opt-13b llama-3.1-8b mistral-7b qwen2-7b qwen3-32b gemma-2-9b "
    "phi-3-mini mixtral-8x7b qwen3-30b-a3b deepseek-v3 t5-large whisper-large-v3",
)
CONFIGS = {n: {"model_type": d["architecture"], **d["config"]} for n, d in MODELS.items()}
DEVICES = samples("device", "h100-sxm survey-accelerator tpu-v4 xeon-gold-6242")
SYSTEMS = samples("system", "2x-dgx-a100-ib pcie-4x-a100 tpu-v4-ring-4")
MESH = {
    "name": "triangle",
    "device": "h100-sxm",
    "source": SOURCE,
    "devices": 3,
    "switches": ["hub"],
    "links": [
        {"a": a, "b": "hub", "bandwidth_GBps": 10.0, "latency_us": 1.0, "source": SOURCE}
        for a in ("gpu0", "gpu1", "gpu2")
    ],
}
SCENARIO = {
    "model": "gpt2",
    "on": "dgx-a100",
    "dtype": "bf16",
    "kv_dtype": "fp8",
    "detail": "op",
    "workload": {"batch": 2, "prompt": 16, "output": 3},
    "parallelism": {"tp": 2, "pp": 2, "stages": [6, 6], "microbatches": 2},
    "lowering": {"attention": "flash", "fusion": True},
    "set": {"hbm.bandwidth_GBps": 1000.0, "model.n_layer": 12},
}


def is_a_right_model(model: Model | None) -> None:
    if model is not None:
        assert counts.parameters(model) > 0
        assert counts.kv_elements_per_token(model) >= 0


@given(st.sampled_from(sorted(MODELS)), st.data())
def test_model_files(name: str, data: st.DataObject) -> None:
    content = document_bytes(no_none(data.draw(mutated(MODELS[name]))), ".toml")
    is_a_right_model(outcome(content, "file.toml", load_model))


@given(st.sampled_from(sorted(CONFIGS)), st.data())
def test_configs_of_hugging_face(name: str, data: st.DataObject) -> None:
    content = document_bytes(data.draw(mutated(CONFIGS[name])), ".json")
    is_a_right_model(outcome(content, "config.json", load_model))


def is_a_right_machine(machine: Machine | None) -> None:
    if machine is None:
        return
    assert machine.system.devices
    assert machine.device.hbm.bandwidth > 0
    n = len(machine.system.devices)
    for hop in machine.system.route(0, n - 1):
        assert machine.system.link(hop).bandwidth > 0


@given(st.sampled_from(sorted(DEVICES)), st.data())
def test_device_files(name: str, data: st.DataObject) -> None:
    content = document_bytes(no_none(data.draw(mutated(DEVICES[name]))), ".toml")
    device = outcome(content, "file.toml", load_device)
    assert device is None or (device.reuse_capacity > 0 and device.hbm.bandwidth > 0)
    is_a_right_machine(outcome(content, "file.toml", load_machine))


@given(st.sampled_from([*sorted(SYSTEMS), "mesh"]), st.data())
def test_system_files(name: str, data: st.DataObject) -> None:
    base = SYSTEMS.get(name, MESH)
    content = document_bytes(no_none(data.draw(mutated(base))), ".toml")
    is_a_right_machine(outcome(content, "file.toml", load_machine))


nodes = st.sampled_from(["gpu0", "gpu1", "gpu2", "gpu3", "hub", "gpu", ""])


@given(st.lists(st.tuples(nodes, nodes), max_size=6), st.integers(0, 4))
def test_systems_of_any_links(pairs: list[tuple[str, str]], count: int) -> None:
    """Self links, doubled links, lost nodes, cycles."""
    link = MESH["links"][0]
    links = [{**link, "a": a, "b": b} for a, b in pairs]
    content = document_bytes({**MESH, "devices": count, "links": links}, ".toml")
    machine = outcome(content, "file.toml", load_machine)
    is_a_right_machine(machine)
    if machine:
        assert len({frozenset(p) for p in pairs}) == len(pairs)
        assert all(a != b for a, b in pairs)


@pytest.mark.parametrize(
    "tiers",
    [[("mesh", 4096)], [("switch", 4096), ("switch", 4096)], [("ring", 4096)] * 3],
)
def test_systems_that_are_too_large_are_refused_at_once(tiers: list[tuple[str, int]]) -> None:
    base = SYSTEMS["2x-dgx-a100-ib"]
    wide = [{**base["tiers"][0], "topology": t, "size": n} for t, n in tiers]
    content = document_bytes({**base, "tiers": wide}, ".toml")
    assert outcome(content, "file.toml", load_machine) is None


@given(st.data())
def test_scenario_files(data: st.DataObject) -> None:
    content = document_bytes(no_none(data.draw(mutated(SCENARIO))), ".toml")
    scenario = outcome(content, "file.toml", lambda path: load_scenario(Path(path)))
    if scenario is None:
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "again.toml"
        save_scenario(scenario, path)
        assert repr(load_scenario(path)) == repr(scenario)  # nan is not equal to itself
    if (scenario.workload.output or 0) < 100:
        try:
            resolve(scenario)
        except MemorywallError as error:
            is_a_sentence(error)


FILES = {
    "model": (load_model, catalogue("model")["llama-3.1-8b"].read_bytes()),
    "device": (load_device, catalogue("device")["h100-sxm"].read_bytes()),
    "system": (load_machine, catalogue("system")["2x-dgx-a100-ib"].read_bytes()),
    "scenario": (lambda p: load_scenario(Path(p)), document_bytes(SCENARIO, ".toml")),
    "config": (load_model, document_bytes(CONFIGS["llama-3.1-8b"], ".json")),
}


@given(st.sampled_from(sorted(FILES)), st.data())
def test_damaged_files(kind: str, data: st.DataObject) -> None:
    load, content = FILES[kind]
    name = "config.json" if kind == "config" else "file.toml"
    outcome(data.draw(damaged(content)), name, load)


OTHERS = [
    *(b"", b"\xff\xfe", b"\x00", b"[]", b"1", b'"text"', b"null", b"[" * 100000),
    *(b'{"a":' * 100000, b"a = " + b"[" * 100000, b"a = " + b"{b = " * 50000),
    b"x" * (4 * 2**20 + 1),
]


@pytest.mark.parametrize("kind", sorted(FILES))
@pytest.mark.parametrize("content", OTHERS, ids=range(len(OTHERS)))
def test_files_that_are_something_else(kind: str, content: bytes) -> None:
    load, _ = FILES[kind]
    assert outcome(content, "config.json" if kind == "config" else "file.toml", load) is None


@given(words | st.just("a" * 5000), st.sampled_from([load_model, load_device, load_machine]))
def test_names_that_nobody_has(name: str, load: Callable[[str], Any]) -> None:
    try:
        load(name)
    except MemorywallError:
        return


def no_none(value: Any) -> Any:
    """TOML has no null."""
    if isinstance(value, dict):
        return {k: no_none(v) for k, v in value.items() if v is not None}
    return [no_none(v) for v in value if v is not None] if isinstance(value, list) else value


# Flags -----------------------------------------------------------------------------------

sizes = st.one_of(st.integers(1, 64), st.sampled_from([0, -1, 1000, 10**8, 10**9]))
small = st.integers(1, 4)
changes = st.dictionaries(
    st.one_of(
        st.sampled_from(
            [
                "hbm.bandwidth_GBps",
                "on_chip.L2.capacity_KiB",
                "on_chip.0.name",
                "on_chip",
                "cores",
                "hbm",
                "x.y.z",
                "launch.overhead_us",
                "model.n_layer",
                "model.num_hidden_layers",
                "system.name",
                ".",
                "model",
                "name",
                "system.tiers.0.size",
                "prefetch",
                "overlap",
                "matrix.TFLOPS.bf16",
                "efficiency.hbm_ramp_MB",
            ]
        ),
        words,
    ),
    st.one_of(st.booleans(), st.sampled_from([0, 1, 0.5, -1, 1e-9, 1e15, math.nan, 10**30]), words),
    max_size=2,
)


@st.composite
def scenarios(draw: st.DrawFn) -> dict[str, Any]:
    """Flags as a user may type them; those that would only take long are kept small."""
    return {
        "model": draw(st.sampled_from(["gpt2", "bert-base", "t5-large", "mixtral-8x7b", "gpt5"])),
        "on": draw(st.sampled_from(["h100-sxm", "dgx-a100", "2x-hgx-h100-ib", "tpu-v4-ring-4"])),
        "workload": {
            "batch": draw(sizes),
            "seq": draw(st.none() | sizes),
            "prompt": draw(st.none() | sizes),
            "output": draw(st.none() | st.integers(-1, 3)),
        },
        "parallelism": {
            "tp": draw(st.sampled_from([1, 1, 2, 3, 4, 16, 0])),
            "pp": draw(st.sampled_from([1, 1, 2, 3, 64])),
            "dp": draw(st.sampled_from([1, 1, 2, 65536])),
            "microbatches": draw(st.sampled_from([1, 1, 2, 9])),
            "stages": draw(st.just([]) | st.lists(st.integers(0, 12), max_size=3)),
            "collective": draw(
                st.sampled_from(["auto", "ring", "tree", "doubling", "hierarchical", "magic"])
            ),
        },
        "lowering": {"attention": draw(st.sampled_from(["flash", "materialised", "eager"]))},
        "dtype": draw(st.sampled_from([None, None, "fp8", "w4a16", "int4", "fp64", "w3a2", ""])),
        "kv_dtype": draw(st.sampled_from([None, None, "fp8", "int4", "kv"])),
        "allow_oom": draw(st.booleans()),
        "shortcuts": draw(st.booleans()),
        "set": draw(changes),
    }


@given(scenarios())
def test_flags_give_a_result_or_a_sentence(flags: dict[str, Any]) -> None:
    try:
        scenario = msgspec.convert(flags, Scenario)
    except msgspec.ValidationError:
        return  # the reader of flags says so
    try:
        result = run(scenario)
    except MemorywallError as error:
        is_a_sentence(error)
        return
    assert isinstance(result, Result)
    assert sum(result.account.total) == scenario.parallelism.devices * result.makespan
    assert result.metrics.makespan_s >= 0


@given(st.text(max_size=20))
def test_changes_as_they_are_typed(text: str) -> None:
    try:
        key, value = parse_change(text)
    except MemorywallError:
        return
    assert key
    assert isinstance(value, bool | int | float | str)


@given(
    st.builds(
        Scenario,
        model=words.filter(bool),
        on=words,
        workload=st.builds(Workload, batch=small, prompt=st.none() | small),
        parallelism=st.builds(Parallelism, tp=small, stages=st.lists(small).map(tuple)),
        lowering=st.builds(Lowering, fusion=st.booleans()),
        dtype=st.none() | words,
        seed=st.integers(0, 2**63 - 1),
        set=st.dictionaries(words, st.one_of(st.booleans(), st.integers(-99, 99), words)),
    )
)
@settings(max_examples=60)
def test_a_saved_scenario_comes_back_equal(scenario: Scenario) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scenario.toml"
        save_scenario(scenario, path)
        assert load_scenario(path) == scenario
