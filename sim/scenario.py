"""A run as one document: what to compute, on what, split how. Flags build the same record."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from sim.errors import InputError
from sim.inputs.catalogue import Machine, Value, load_machine, load_model, split_changes
from sim.inputs.documents import checked, convert, read_document
from sim.mapping.parallelism import Parallelism
from sim.mapping.plan import Pass
from sim.mapping.streams import Streams
from workloads.batch import Batch
from workloads.block import Lowering
from workloads.model import Model, Record
from workloads.precision import Precision, parse_precision

Tokens = Annotated[int, Meta(gt=0, le=10**8)]
Steps = Annotated[int, Meta(gt=0, le=131072)]  # each is a forward pass
Seed = Annotated[int, Meta(ge=0, le=2**63 - 1)]
ModelName = Annotated[
    str, Meta(description="Model: a name of the catalogue, a config.json or its folder, or a TOML")
]
MachineName = Annotated[
    str,
    Meta(
        description="Device or system: a name of the catalogue, 4xl40s for four of a device, "
        "or a TOML",
        extra={"group": "machine"},
    ),
]
Dtype = Annotated[
    str | None,
    Meta(
        description="Number format: bf16, fp16, fp8, int8, ..., or wXaY such as w4a16; "
        "the model's own if not given",
        extra={"group": "machine"},
    ),
]
KvDtype = Annotated[
    str | None,
    Meta(
        description="Number format of the KV cache; that of the activations if not given",
        extra={"group": "machine"},
    ),
]
Settings = Annotated[
    dict[str, Value],
    Meta(
        description="KEY=VALUE changes one value of the device, the system or the model, "
        "e.g. hbm.bandwidth_GBps=6700 or model.num_hidden_layers=8; or by a factor: *2, /4, +10%",
        extra={"group": "machine"},
    ),
]
DEFAULT_SEQ, DEFAULT_PROMPT, DEFAULT_OUTPUT = 512, 512, 32


class Workload(Record, frozen=True, kw_only=True):
    """A static point: `batch` equal sequences.

    Encoders read `seq` tokens. Decoders read `prompt` tokens and generate `output`, the first
    of them by the prompt's own pass. Encoder-decoders encode `seq` and start from `prompt`.
    """

    batch: Annotated[Tokens, Meta(description="Sequences in the batch")] = 1
    seq: Annotated[
        Tokens | None,
        Meta(description="Tokens that an encoder reads per sequence; 512 if not given"),
    ] = None
    prompt: Annotated[
        Tokens | None, Meta(description="Tokens of the prompt per sequence; 512 if not given")
    ] = None
    output: Annotated[
        Steps | None,
        Meta(description="Tokens that a decoder generates per sequence; 32 if not given"),
    ] = None


class Scenario(Record, frozen=True, kw_only=True):
    """Everything that decides a result. `set` changes single values of the files named."""

    model: ModelName
    on: MachineName
    workload: Workload = msgspec.field(default_factory=Workload)
    parallelism: Parallelism = msgspec.field(default_factory=Parallelism)
    lowering: Lowering = msgspec.field(default_factory=Lowering)
    streams: Streams = msgspec.field(default_factory=Streams)
    dtype: Dtype = None
    kv_dtype: KvDtype = None
    detail: Annotated[
        Literal["op", "tile"], Meta(description="Compute the time per operator or per tile")
    ] = "op"
    shortcuts: Annotated[
        bool, Meta(description="Simulate equal ranks and uncontended runs of operators only once")
    ] = True
    allow_oom: Annotated[
        bool,
        Meta(
            description="Continue if the model does not fit into memory",
            extra={"group": "memory"},
        ),
    ] = False
    seed: Annotated[Seed, Meta(description="Seed, recorded with the result")] = 0
    set: Settings = msgspec.field(default_factory=dict)


class Resolved(msgspec.Struct, frozen=True):
    """A scenario with its names looked up and its defaults filled in."""

    scenario: Scenario
    model: Model
    machine: Machine
    precision: Precision
    passes: tuple[Pass, ...]
    context: int  # tokens of a sequence in the cache at the end


def load_scenario(path: Path) -> Scenario:
    """A scenario of a TOML file."""
    return convert(read_document(path), Scenario, str(path))


def save_scenario(scenario: Scenario, path: Path) -> None:
    """Write a scenario as TOML; `load_scenario` gives it back equal."""
    path.write_text("\n".join(_toml(scenario)) + "\n", encoding="utf-8")


def _toml(scenario: Scenario) -> list[str]:
    plain = msgspec.to_builtins(scenario)
    default = msgspec.to_builtins(Scenario(model="", on=""))
    top, tables = [], []
    for key, value in plain.items():
        if value is None or (key not in ("model", "on") and value == default[key]):
            continue
        if isinstance(value, dict):
            base = default[key]
            kept = {k: v for k, v in value.items() if v is not None and v != base.get(k)}
            tables += ["", f"[{key}]", *(f"{_key(k)} = {_literal(v)}" for k, v in kept.items())]
        else:
            top.append(f"{key} = {_literal(value)}")
    return top + tables


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _literal(key)


def _literal(value: object) -> str:
    if isinstance(value, float):
        return repr(value)  # JSON has no nan and inf; TOML has
    # JSON's strings, integers, booleans and arrays are TOML's, too, but for a raw DEL.
    return msgspec.json.encode(value).decode().replace("\x7f", "\\u007f")


def resolve(scenario: Scenario) -> Resolved:
    """Look up names, apply `set`, choose defaults. Raises InputError."""
    changes = split_changes(scenario.set)
    model = load_model(scenario.model, changes["model"])
    machine = load_machine(scenario.on, changes["device"], changes["system"])
    return assemble(model, machine, scenario)


def assemble(model: Model, machine: Machine, scenario: Scenario | None = None) -> Resolved:
    """A run from a model and a machine at hand; the scenario's own names are not looked up.

    Without a scenario: one sequence of the default lengths on one device.
    """
    scenario = scenario or Scenario(model=model.name, on=machine.name)
    precision = precision_of(model, scenario)
    passes, context = checked(
        f"workload of {model.name}", lambda: make_passes(model, scenario.workload)
    )
    return Resolved(scenario, model, machine, precision, passes, context)


def precision_of(model: Model, scenario: Scenario) -> Precision:
    """The number formats of a run: the scenario's, else the model's own."""
    native = model.kv_dtype if scenario.dtype is None else ""
    return checked(
        "number formats",
        lambda: parse_precision(scenario.dtype or model.dtype, scenario.kv_dtype or native or None),
    )


class Lengths(msgspec.Struct, frozen=True):
    """A static point with its defaults: tokens read at first, output, and an encoder's source."""

    batch: int
    prompt: int
    output: int
    source: int

    @property
    def context(self) -> int:
        """Tokens of a sequence in the cache at the end."""
        return self.prompt + self.output - 1


def lengths_of(model: Model, work: Workload) -> Lengths:
    """What a workload says of a model. Raises InputError for what does not go with it."""
    if model.decoder is None:
        for name in ("prompt", "output"):
            if getattr(work, name) is not None:
                raise InputError(
                    f"{name} = {getattr(work, name)}: {model.name} is an encoder and generates "
                    "nothing; use --seq"
                )
        return Lengths(work.batch, work.seq or DEFAULT_SEQ, 1, 0)
    source = 0
    if model.encoder is not None:
        source = work.seq or model.source_tokens or DEFAULT_SEQ
        if model.source_tokens and source != model.source_tokens:
            raise InputError(
                f"seq = {source}: {model.name} always encodes {model.source_tokens} positions"
            )
        prompt = work.prompt or 1
    else:
        if work.seq and work.prompt:
            raise InputError(
                "seq and prompt both given; for a decoder they mean the same, give one"
            )
        prompt = work.prompt or work.seq or DEFAULT_PROMPT
    return Lengths(work.batch, prompt, work.output or DEFAULT_OUTPUT, source)


def make_passes(model: Model, work: Workload) -> tuple[tuple[Pass, ...], int]:
    """The forward passes of a static point, and the final context."""
    n = lengths_of(model, work)
    if model.decoder is None:
        return (Pass("encode", Batch.encode(n.batch, n.prompt)),), n.context
    passes = [Pass("prefill", Batch.prefill(n.batch, n.prompt, source=n.source))]
    for step in range(1, n.output):
        passes.append(Pass("decode", Batch.decode(n.batch, n.prompt + step, source=n.source)))
    return tuple(passes), n.context
