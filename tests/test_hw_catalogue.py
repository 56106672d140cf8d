"""The hardware catalogue: every file loads, and its numbers are the published ones."""

from __future__ import annotations

import itertools
from pathlib import Path

import msgspec
import networkx as nx
import pytest

import hw_models
from hw_models.device import Device
from hw_models.system import System, SystemSpec, build_system
from sim.errors import InputError
from sim.inputs.catalogue import catalogue, load_device, load_machine
from sim.inputs.documents import convert, read_document

ROOT = Path(hw_models.__file__).parent
DEVICES = sorted((ROOT / "devices").glob("*.toml"))
SYSTEMS = sorted((ROOT / "systems").glob("*.toml"))


def load_spec(name: str) -> SystemSpec:
    path = ROOT / "systems" / f"{name}.toml"
    return convert(read_document(path), SystemSpec, str(path))


def load_system(name: str) -> System:
    return build_system(load_spec(name))


def every_pair(system: System) -> list[tuple[int, int]]:
    return list(itertools.permutations(range(len(system.devices)), 2))


def slowest_link(system: System, src: int, dst: int) -> float:
    return min(system.link(hop).bandwidth for hop in system.route(src, dst))


def latency(system: System, src: int, dst: int) -> float:
    return sum(system.link(hop).latency for hop in system.route(src, dst))


@pytest.mark.parametrize("path", DEVICES, ids=lambda p: p.stem)
def test_device_loads_and_is_called_as_its_file(path: Path) -> None:
    device = load_device(path.stem)
    assert device.name == path.stem
    assert device.vector.flops("fp32") is not None
    assert msgspec.convert(msgspec.to_builtins(device), Device) == device


@pytest.mark.parametrize("path", DEVICES, ids=lambda p: p.stem)
def test_device_is_a_plausible_machine(path: Path) -> None:
    """Guards against a slip of a unit: KiB for MiB, GB/s for TB/s, sparse for dense."""
    device = load_device(path.stem)
    matrix = device.matrix.TFLOPS
    assert any(memory.scope == "core" for memory in device.on_chip)
    assert any(memory.scope == "shared" for memory in device.on_chip) or device.cores == 1
    assert 2**17 <= device.reuse_capacity <= 2**29
    assert device.hbm.capacity > 8 * device.reuse_capacity
    narrowing = [matrix[d] for d in ("fp32", "tf32", "bf16", "fp8", "fp4") if d in matrix]
    assert narrowing == sorted(narrowing)
    for wide, narrow in (("bf16", "fp8"), ("tf32", "bf16"), ("fp8", "fp4")):
        if wide in matrix and narrow in matrix:
            assert matrix[narrow] / matrix[wide] == pytest.approx(2, rel=0.03)
    for memory in device.on_chip:
        if memory.bandwidth_GBps is not None and device.levels == "parallel":
            assert memory.bandwidth_GBps > device.hbm.bandwidth_GBps
    assert 0 <= device.launch.overhead_us <= 20


@pytest.mark.parametrize("path", [*DEVICES, *SYSTEMS], ids=lambda p: p.stem)
def test_every_table_names_its_source(path: Path) -> None:
    tables = [("", read_document(path))]
    while tables:
        name, table = tables.pop()
        if not all(isinstance(value, dict) for value in table.values()):  # else a table of tables
            assert len(table.get("source", "")) > 15, f"[{name}] states no source"
        for key, value in table.items():
            parts = ("TFLOPS", "passes", "walk", "most_MiB", "protocols", "residuals")
            if key not in parts:  # of a sourced table
                inner = value if isinstance(value, list) else [value]
                tables += [(key, child) for child in inner if isinstance(child, dict)]


# Typed from the datasheets, apart from the files: dense 16-bit matrix TFLOP/s, fp32 vector TFLOP/s,
# GB/s, GiB, cores. bf16, or fp16 where a device has no bf16.
PUBLISHED = {
    "a100-sxm-40gb": (312, 19.5, 1555, 40, 108),
    "a100-sxm-80gb": (312, 19.5, 2039, 80, 108),
    "a100-pcie-40gb": (312, 19.5, 1555, 40, 108),
    "a100-pcie-80gb": (312, 19.5, 1935, 80, 108),
    "h100-sxm": (1979 / 2, 67, 3350, 80, 132),
    "h100-pcie": (1513 / 2, 51, 2000, 80, 114),
    "h200": (1979 / 2, 67, 4800, 141, 132),
    "b200": (4500 / 2, 75, 7700, 180, 148),
    "l40s": (362.05, 91.6, 864, 48, 142),
    "l4": (242 / 2, 30.3, 300, 24, 58),
    "t4": (65, 8.1, 320, 16, 40),
    "v100-sxm": (125, 15.7, 900, 32, 80),
    "p100": (21.2, 10.6, 732, 16, 56),
    "rtx-4090": (165.2, 82.6, 1008, 24, 128),
    "rtx-pro-6000": (4000 / 8, 125, 1792, 96, 188),
    "rtx-3090": (71, 35.6, 936.2, 24, 82),
    "rtx-a6000": (309.7 / 2, 38.7, 768, 48, 84),
    "a40": (149.7, 37.4, 696, 48, 84),
    "a10": (125, 31.2, 600, 24, 72),
    "h100-nvl": (1671 / 2, 60.3, 3938, 94, 132),
    "gh200": (1979 / 2, 67, 4000, 96, 132),
    "h20": (148, 39.5, 4000, 96, 78),
    "gb200": (360e3 / 72 / 2, 78, 8000, 186, 148),
    "v100-pcie": (112, 14.1, 900, 32, 80),
    "p4": (None, 5.4, 192, 8, 20),
    "mi100": (92.3, 23.1, 1228.8, 32, 120),
    "mi250-die": (362.1 / 2, 45.3 / 2, 1638.4, 64, 104),
    "mi210": (181, 22.6, 1638.4, 64, 104),
    "mi300x": (1307.4, 163.4, 5300, 192, 304),
    "tpu-v4": (275, None, 1200, 32, 2),
    "tpu-v5e": (197, None, 819, 16, 1),
    "xeon-gold-6242": (None, 2.87, 140.8, None, 16),
    "survey-accelerator": (None, 0.016, 64, None, 1),
}


def test_the_table_covers_the_catalogue() -> None:
    assert set(PUBLISHED) == {path.stem for path in DEVICES}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_figures(name: str) -> None:
    matrix, vector, bandwidth, capacity, cores = PUBLISHED[name]
    device = load_device(name)
    rates = device.matrix.TFLOPS
    assert device.cores == cores
    assert device.hbm.bandwidth_GBps == bandwidth
    if capacity is not None:
        assert device.hbm.capacity == pytest.approx(capacity * 2**30, abs=1e7)
    if vector is not None:
        assert device.vector.TFLOPS["fp32"] == pytest.approx(vector, rel=0.01)
    if matrix is None:
        assert not {"bf16", "fp16"} & set(rates)
    else:
        assert rates.get("bf16", rates.get("fp16")) == pytest.approx(matrix, rel=0.01)


@pytest.mark.parametrize(
    ("name", "flops_per_core_cycle"),
    [
        ("a100-sxm-80gb", 128),
        ("h100-sxm", 256),
        ("h100-pcie", 256),
        ("l40s", 256),
        ("l4", 256),
        ("t4", 128),
        ("v100-sxm", 128),
        ("p100", 128),
        ("rtx-4090", 256),
        ("rtx-pro-6000", 256),
        ("mi210", 128),
        ("mi250-die", 128),
        ("mi100", 128),
        ("rtx-3090", 256),
        ("rtx-a6000", 256),
        ("a40", 256),
        ("a10", 256),
        ("h100-nvl", 256),
        ("gh200", 256),
        ("h20", 256),
        ("gb200", 256),
        ("v100-pcie", 128),
        ("p4", 256),
        ("mi300x", 256),
        ("xeon-gold-6242", 64),
    ],
)
def test_cores_and_clock_give_the_vector_peak(name: str, flops_per_core_cycle: int) -> None:
    device = load_device(name)
    peak = device.cores * device.clock_GHz * 1e9 * flops_per_core_cycle
    assert device.vector.flops("fp32") == pytest.approx(peak, rel=0.01)


@pytest.mark.parametrize("name", ["v100-sxm", "v100-pcie", "t4", "p100", "p4"])
def test_devices_before_ampere_have_no_bf16(name: str) -> None:
    assert load_device(name).matrix.flops("bf16") is None


def test_survey_accelerator_is_the_one_of_the_paper() -> None:
    """16 x 16 multipliers at 1 GHz; a byte costs 1/64 + 1/16 cycles (paper.md A7, B6)."""
    device = load_device("survey-accelerator")
    l2 = next(memory for memory in device.on_chip if memory.scope == "shared")
    assert device.matrix.flops("int8") == 2 * 256 * 1e9
    assert l2.bandwidth_GBps is not None
    cycles = 1 / device.hbm.bandwidth_GBps + 1 / l2.bandwidth_GBps
    assert cycles == 1 / 64 + 1 / 16
    assert (device.overlap, device.levels, device.prefetch) == ("perfect", "series", False)


# Fractions of the datasheet bandwidth that a weight read reaches, by MB: accuracy.md point 2.
RAMP = {
    "h100-sxm": [(11.3, 0.45), (22.6, 0.60), (45, 0.71), (90, 0.79), (600, 0.89)],
    "a100-sxm-80gb": [(11.3, 0.41), (22.6, 0.54), (45, 0.62), (90, 0.66), (600, 0.78)],
}


@pytest.mark.parametrize("name", RAMP)
def test_launch_floor_and_hbm_efficiency_give_the_measured_ramp(name: str) -> None:
    device = load_device(name)
    assert device.efficiency.hbm_ramp_MB == 0, "the floor is the ramp; both would count it twice"
    for megabytes, measured in RAMP[name]:
        ideal = megabytes * 1e6 / device.hbm.bandwidth
        reached = ideal / (ideal / device.efficiency.hbm + device.launch.overhead_us * 1e-6)
        assert reached == pytest.approx(measured, rel=0.1)


@pytest.mark.parametrize(
    ("name", "measured"),
    [
        ("h100-sxm", {512: 0.17, 1024: 0.27, 2048: 0.40, 4096: 0.51, 8192: 0.575, 16384: 0.615}),
        ("a100-sxm-80gb", {512: 0.26, 1024: 0.37, 2048: 0.47, 4096: 0.525, 8192: 0.555}),
    ],
)
def test_attention_efficiency_follows_the_measurement(
    name: str, measured: dict[int, float]
) -> None:
    efficiency = load_device(name).efficiency
    for tokens, reached in measured.items():
        modelled = efficiency.attention * tokens / (tokens + efficiency.attention_ramp_tokens)
        assert modelled == pytest.approx(reached, rel=0.1)


def test_what_is_no_gpu_stays_at_its_datasheet() -> None:
    """Generic terms are those of GPUs."""
    plain = {p.stem for p in DEVICES if "efficiency" not in read_document(p)}
    assert plain == {p.stem for p in DEVICES if load_device(p.stem).kind != "gpu"}


@pytest.mark.parametrize("path", SYSTEMS, ids=lambda p: p.stem)
def test_system_builds_from_devices_of_the_catalogue(path: Path) -> None:
    spec = load_spec(path.stem)
    system = build_system(spec)
    assert spec.name == path.stem
    assert spec.device in {p.stem for p in DEVICES}
    assert nx.is_connected(system.graph)
    for src, dst in every_pair(system):
        assert slowest_link(system, src, dst) > 0
        assert latency(system, src, dst) == pytest.approx(latency(system, dst, src))


@pytest.mark.parametrize("path", SYSTEMS, ids=lambda p: p.stem)
def test_every_link_names_its_source(path: Path) -> None:
    for link in load_system(path.stem).links:
        assert len(link.source) > 15


@pytest.mark.parametrize(
    ("name", "devices", "bandwidth"),
    [
        ("dgx-a100", 8, 300e9),
        ("hgx-h100", 8, 450e9),
        ("hgx-h200", 8, 450e9),
        ("hgx-b200", 8, 900e9),
        ("pcie-4x-l40s", 4, 31.5e9),
        ("pcie-4x-a100", 4, 31.5e9),
        ("pcie-4x-rtx-4090", 4, 31.5e9),
        ("pcie-8x-rtx-pro-6000", 8, 63e9),
        ("hgx-h20", 8, 450e9),
    ],
)
def test_behind_one_switch_all_pairs_are_alike(name: str, devices: int, bandwidth: float) -> None:
    system, spec = load_system(name), load_spec(name)
    assert len(system.devices) == devices
    for src, dst in every_pair(system):
        assert len(system.route(src, dst)) == 2
        assert slowest_link(system, src, dst) == bandwidth
        assert latency(system, src, dst) == pytest.approx(spec.tiers[0].latency_us * 1e-6)


@pytest.mark.parametrize(
    ("name", "inside", "across"),
    [("2x-hgx-h100-ib", 450e9, 50e9), ("2x-dgx-a100-ib", 300e9, 25e9)],
)
def test_two_nodes_use_nvlink_inside_and_infiniband_across(
    name: str, inside: float, across: float
) -> None:
    system = load_system(name)
    assert len(system.devices) == 16
    for src, dst in every_pair(system):
        same_node = src // 8 == dst // 8
        assert len(system.route(src, dst)) == 2
        assert slowest_link(system, src, dst) == (inside if same_node else across)
    assert latency(system, 0, 7) < latency(system, 7, 8)


def test_mi300x_is_a_full_mesh() -> None:
    system = load_system("mi300x-8x")
    assert len(system.links) == 8 * 7 / 2
    for src, dst in every_pair(system):
        assert len(system.route(src, dst)) == 1
        assert slowest_link(system, src, dst) == 64e9


@pytest.mark.parametrize(("name", "n"), [("tpu-v5e-ring-8", 8), ("tpu-v4-ring-4", 4)])
def test_ring_takes_the_shorter_way(name: str, n: int) -> None:
    system = load_system(name)
    assert len(system.devices) == len(system.links) == n
    for src, dst in every_pair(system):
        assert len(system.route(src, dst)) == min((dst - src) % n, (src - dst) % n)
        assert slowest_link(system, src, dst) == 50e9


# Smallest NCCL all-reduce, us, on 8 devices (accuracy.md point 8: 16-27).
@pytest.mark.parametrize(("name", "floor_us"), [("dgx-a100", 21.3), ("hgx-h100", 15.6)])
def test_ring_all_reduce_of_nothing_takes_the_nccl_floor(name: str, floor_us: float) -> None:
    rounds = 2 * (8 - 1)
    launch = load_device(load_spec(name).device).launch.overhead_us
    modelled = launch + rounds * latency(load_system(name), 0, 1) * 1e6
    assert modelled == pytest.approx(floor_us, rel=0.05)


@pytest.mark.parametrize("device", catalogue("device"))
def test_several_of_a_device_are_a_system_by_name(device: str) -> None:
    """With the link of the catalogue's own box, or of `boxes.toml`; or refused in one sentence."""
    alone = ("gb200", "gh200", "mi250-die", "p100", "survey-accelerator", "v100-sxm")
    if device in alone or device.startswith("xeon"):
        if device != "gb200":
            with pytest.raises(InputError, match="is on record"):
                load_machine(f"2x{device}")
        return
    for name in (f"4x{device}", f"4x {device}", f"4x-{device}"):
        machine = load_machine(name)
        assert machine.device == load_device(device)
        assert len(machine.system.devices) == 4


def test_a_box_of_the_catalogues_size_is_the_catalogues_system() -> None:
    for name, system in (("8xh100-sxm", "hgx-h100"), ("4xl40s", "pcie-4x-l40s")):
        assert load_machine(name).system.links == load_machine(system).system.links
    mesh, part = load_machine("mi300x-8x").system, load_machine("4xmi300x").system
    assert {link.bandwidth_GBps for link in mesh.links} == {
        link.bandwidth_GBps for link in part.links
    }


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("9xl40s", "at most 8"),
        ("4xl40z", "did you mean"),
        ("0xl40s", "no device or system"),
        ("4xxl40s", "no device is called"),
        ("99999xl40s", "no device or system"),
    ],
)
def test_a_box_that_cannot_be_is_refused(name: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        load_machine(name)


def test_the_link_of_a_box_can_be_changed() -> None:
    slow = load_machine("4xl40s", None, {"tiers.0.bandwidth_GBps": 8.0})
    assert {link.bandwidth_GBps for link in slow.system.links} == {8.0}
