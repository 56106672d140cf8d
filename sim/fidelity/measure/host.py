"""The machine at hand as the operating system tells it: cores, clock, caches, memory."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

import msgspec

ROOT = Path("/")
# Where the system reports nothing: the sizes of many server cores.
USUAL_L2, USUAL_L3 = 1024, 32768


class Cache(msgspec.Struct, frozen=True):
    """KiB of one instance of a cache level, and how many cores share it."""

    level: int
    kib: float
    cores: int
    reported: bool = True


class HostDescription(msgspec.Struct, frozen=True):
    """A CPU with what it can use. Clock in GHz, memory in bytes."""

    name: str
    vendor: str
    cores: int
    clock: float
    clock_source: str
    caches: tuple[Cache, ...]
    memory: int

    @property
    def last_level(self) -> float:
        """Bytes of the largest cache that one core can use."""
        return max(c.kib for c in self.caches) * 1024


def slug(name: str) -> str:
    """A name as the catalogue writes names."""
    plain = re.sub(r"\((r|tm)\)|@.*$|\b(cpu|processor)\b", " ", name.lower())
    return re.sub(r"[^a-z0-9.]+", "-", plain).strip("-.")[:80] or "machine"


def this_host(root: Path = ROOT) -> HostDescription:
    """What /proc and /sys say, as far as they can be read; `root` stands before both."""
    info = _cpuinfo(root)
    name = info.get("model name") or platform.processor() or platform.machine() or "cpu"
    cores = usable_cores()
    clock, source = _clock(root, info)
    caches = _caches(root) or (
        Cache(2, USUAL_L2, 1, reported=False),
        Cache(3, USUAL_L3, cores, reported=False),
    )
    return HostDescription(
        name=slug(name),
        vendor=info.get("vendor_id", platform.machine()),
        cores=cores,
        clock=clock,
        clock_source=source,
        caches=caches,
        memory=_memory(root),
    )


def usable_cores() -> int:
    """Those that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _cpuinfo(root: Path) -> dict[str, str]:
    fields: dict[str, str] = {}
    for line in _read(root / "proc/cpuinfo").splitlines():
        key, colon, value = line.partition(":")
        if colon:
            fields.setdefault(key.strip(), value.strip())
    return fields


def _clock(root: Path, info: dict[str, str]) -> tuple[float, str]:
    most = _read(root / "sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq")
    if most.isdecimal():
        return int(most) / 1e6, "cpufreq of the operating system, the highest"
    try:
        return float(info["cpu MHz"]) / 1e3, "/proc/cpuinfo, when it was measured"
    except (KeyError, ValueError):
        return 2.5, "this machine does not report it; a usual value, which no price depends on"


def _caches(root: Path) -> tuple[Cache, ...]:
    caches = []
    for index in sorted((root / "sys/devices/system/cpu/cpu0/cache").glob("index*")):
        level, size = _read(index / "level"), _read(index / "size")
        if _read(index / "type") == "Instruction" or not level.isdecimal() or level == "1":
            continue
        match = re.fullmatch(r"(\d+)([KM]?)", size)
        if match:
            kib = int(match[1]) * {"K": 1.0, "M": 1024.0, "": 1 / 1024}[match[2]]
            caches.append(Cache(int(level), kib, _count(_read(index / "shared_cpu_list"))))
    return tuple(caches)


def _count(ranges: str) -> int:
    """Cores of a list such as `0-3,8`."""
    total = 0
    for part in ranges.split(","):
        first, dash, last = part.partition("-")
        if first.isdecimal():
            total += int(last) - int(first) + 1 if dash and last.isdecimal() else 1
    return max(1, total)


def _memory(root: Path) -> int:
    """Bytes: of the machine, or fewer where a control group allows fewer."""
    match = re.search(r"MemTotal:\s+(\d+) kB", _read(root / "proc/meminfo"))
    total = int(match[1]) * 1024 if match else 8 * 2**30
    most = _read(root / "sys/fs/cgroup/memory.max")
    return min(total, int(most)) if most.isdecimal() else total
