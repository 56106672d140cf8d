"""Files of devices, systems, models and scenarios with a value, a line or all bytes gone wrong."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

from attacks.commands import COMMANDS, QUICK, Attempt
from sim.inputs.catalogue import catalogue

BAD_VALUES = ("nan", "inf", "-inf", "1e999", "-1", '"x"', "[]", "{}", "[[[1]]]", "true", "")
BAD_JSON = ("NaN", "Infinity", "1e999", "-1", '"x"', "[]", "{}", "null", "true", "9" * 5000)
RAW = (
    b"",
    b"\x00" * 100,
    b"\xff\xfe\xfd",
    b"[" * 100_000,
    b'{"a":' * 50_000,
    b"a = " + b"[" * 10_000,
    b"x" * (5 * 2**20),
    b"\xef\xbb\xbfa = 1",
    b"[model]\n[model]\n",
    b"a = 1\na = 2\n",
    b"= 1",
    b'"\x1b[2J" = 1',
    b"a" + b".a" * 100_000 + b" = 1",
    b"[" + b"'a' . " * 100 + b"b]",
    b"a = [" + b"1," * 2**18 + b"]",
    b"x" * 5000 + b" = 1",
    b"[efficiency]\nlike = [[1]]\n[efficiency.source]\na = 1\n",
)
SCENARIO = """model = "gpt2"
on = "h100-sxm"
seed = 1
dtype = "bf16"
[workload]
batch = 2
prompt = 16
output = 2
[parallelism]
tp = 1
[lowering]
fusion = true
[set]
"hbm.bandwidth_GBps" = 1000.0
"""
SERVING = """model = "gpt2"
on = "h100-sxm"
replicas = 1
[traffic]
arrivals = "poisson:20"
num_requests = 5
rate_scale = 1.0
[knobs]
max_num_seqs = 8
max_wait_ms = 1.0
[slo]
ttft_s = 1.0
"""


def documents(folder: Path) -> Iterator[Attempt]:
    """Files of devices, systems, models, scenarios and serving runs, with a value gone wrong."""
    device = catalogue("device")["t4"].read_text(encoding="utf-8")
    system = catalogue("system")["hgx-h100"].read_text(encoding="utf-8")
    run = COMMANDS["run"]
    uses: dict[str, tuple[str, Callable[[str], tuple[str, ...]]]] = {
        "device": (device, lambda path: ("run", "gpt2", "--on", path, "--dtype", "fp16", *run[4:])),
        "system": (system, lambda path: ("run", "gpt2", "--on", path, *run[4:])),
        "scenario": (SCENARIO, lambda path: ("run", path, "--no-what-if", *QUICK)),
        "serving": (SERVING, lambda path: ("serve", path, *QUICK)),
    }
    for kind, (text, use) in uses.items():
        for number, changed in enumerate(_changed_toml(text)):
            path = folder / f"{kind}-{number}.toml"
            path.write_text(changed, encoding="utf-8")
            yield Attempt(f"{kind} {number}", use(str(path)))
        for number, raw in enumerate(RAW):
            path = folder / f"{kind}-raw-{number}.toml"
            path.write_bytes(raw)
            yield Attempt(f"{kind} raw {number}", use(str(path)))
    for number, changed in enumerate(_changed_configs()):
        path = folder / f"model-{number}.json"
        path.write_text(changed, encoding="utf-8")
        yield Attempt(f"model {number}", ("run", str(path), *run[2:]))
    for number, raw in enumerate(RAW):
        path = folder / f"model-raw-{number}.json"
        path.write_bytes(raw)
        yield Attempt(f"model raw {number}", ("run", str(path), *run[2:]))


def _changed_toml(text: str) -> Iterator[str]:
    """The file with each value replaced in turn, with lines gone, doubled and added."""
    lines = text.splitlines()
    keys = [i for i, line in enumerate(lines) if "=" in line and not line.startswith(("#", " "))]
    for at in keys[:20]:
        key = lines[at].partition("=")[0]
        for value in BAD_VALUES:
            yield "\n".join([*lines[:at], f"{key}= {value}", *lines[at + 1 :]])
        yield "\n".join([*lines[: at + 1], *lines[at:]])
        yield "\n".join([*lines[:at], *lines[at + 1 :]])
        yield "\n".join([*lines[:at], f"{key.strip()}x = 1", *lines[at:]])


CONFIG = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 1000,
    "max_position_embeddings": 2048,
    "torch_dtype": "bfloat16",
    "rope_theta": 10000.0,
}


def _changed_configs() -> Iterator[str]:
    whole = json.dumps(CONFIG)
    for key, value in CONFIG.items():
        old = f'"{key}": {json.dumps(value)}'
        for new in BAD_JSON:
            yield whole.replace(old, f'"{key}": {new}')
        yield whole.replace(old, f"{old}, {old}")
        yield json.dumps({k: v for k, v in CONFIG.items() if k != key})
