"""Models, devices and systems by name or by path, with single values changed on request."""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec

from hw_models.carry import carried
from hw_models.device import Device
from hw_models.efficiency import Efficiency
from hw_models.system import System, SystemSpec, build_system
from sim.errors import InputError, hint, quoted, shortened
from sim.inputs.boxes import box_of
from sim.inputs.documents import Document, checked, convert, read_document
from workloads.entry import CatalogueModel, model_from_entry
from workloads.huggingface import known_keys, model_from_config
from workloads.model import Model
from workloads.numbers import DECIMAL, WHOLE, decimal_number, whole_number

Value = str | int | float | bool
Changes = Mapping[str, Value]
GENERIC = "generic"
_NO_NUMBER = r"(?i)[+-]?(nan|inf|infinity)"
LAUNCH = "launch.overhead_us"
LAUNCHES = ("floor_us", "eager_us")  # the same of fitted kernels: it stands in for LAUNCH
FOLDERS = {
    "model": ("workloads", "catalogue"),
    "device": ("hw_models", "devices"),
    "system": ("hw_models", "systems"),
}


class Machine(msgspec.Struct, frozen=True):
    """A system and its kind of device. A lone device is a system of one."""

    name: str
    system: System
    device: Device


def catalogue(kind: str) -> dict[str, Path]:
    """Name -> file of all catalogue entries of a kind (model, device or system)."""
    package, folder = FOLDERS[kind]
    root = Path(str(resources.files(package))) / folder
    return {path.stem: path for path in sorted(root.glob("*.toml"))}


def load_model(ref: str, changes: Changes | None = None) -> Model:
    """A model of the catalogue, of a TOML file, or of a Hugging Face config.json (or its folder).

    `changes` are keys of the config to replace. Raises InputError.
    """
    path = locate("model", ref)
    document = read_document(path)
    if path.suffix == ".json":
        name = path.resolve().parent.name or "model"
        for key in changes or {}:
            known = {*document, *known_keys(document.get("model_type"))}
            if key.split(".")[0] not in known:
                raise InputError(
                    f"{path}: --set model.{shortened(key)}: no such key{hint(key, known)}"
                )
        _apply(document, changes or {}, str(path))
        return checked(str(path), lambda: model_from_config(document, name=name, source=str(path)))
    entry = convert(document, CatalogueModel, str(path))
    config = copy.deepcopy(entry.config)
    _apply(config, changes or {}, str(path))
    entry = msgspec.structs.replace(entry, config=config)
    return checked(str(path), lambda: model_from_entry(entry))


def load_device(ref: str, changes: Changes | None = None) -> Device:
    """A device of the catalogue or of a TOML file, with values replaced. Raises InputError."""
    path = locate("device", ref)
    document = read_document(path)
    where = _with(path, changes)
    _inherit(document, str(path))
    _launched(document, changes or {})
    _apply(document, changes or {}, where)
    return convert(document, Device, where)


def own_terms(name: str) -> Efficiency:
    """The terms that a device of the catalogue has itself, without those that it takes."""
    path = catalogue("device")[name]
    document: Document = read_document(path).get("efficiency", {})
    document.pop("like", None)
    return convert(document, Efficiency, str(path))


def _inherit(document: Document, where: str, above: tuple[str, ...] = ()) -> None:
    """Terms that a device takes from others: `efficiency.like`, the generic set or devices of the
    catalogue, one or several. Its own stand before those of the first, these before those of the
    second, family by family and format by format."""
    own = document.get("efficiency")
    if not isinstance(own, dict) or "like" not in own:
        return
    refs = own.pop("like")
    known = catalogue("device")
    for ref in refs if isinstance(refs, list) else [refs]:
        if not isinstance(ref, str):
            raise InputError(
                f"{where}: key `efficiency.like` = {quoted(ref)}: must be the name of a device, or "
                "a list of names"
            )
        if ref in above:
            raise InputError(f"{where}: key `efficiency.like`: {ref} takes its terms from itself")
        if ref == GENERIC:
            base = _generic(document)
        elif ref in known:
            parent = read_document(known[ref])
            _inherit(parent, where, (*above, ref))
            base = parent.get("efficiency", {})
        else:
            close = hint(ref, [GENERIC, *known])
            raise InputError(
                f"{where}: key `efficiency.like`: no device is called {quoted(ref)}{close}"
            )
        for key, value in base.items():
            mine = own.get(key)
            if isinstance(mine, dict) and isinstance(value, dict):
                own[key] = {**value, **mine}
            else:
                own.setdefault(key, value)


def _launched(document: Document, changes: Changes) -> None:
    """Scale the floors of fitted kernels as LAUNCH is, so that a change of it means all kernels;
    floors that are changed themselves are left to that."""
    launch, new = document.get("launch"), changes.get(LAUNCH)
    old = launch.get("overhead_us") if isinstance(launch, dict) else None
    if not isinstance(new, int | float) or not isinstance(old, int | float) or old <= 0 or new < 0:
        return

    def scale(place: Any) -> None:
        for key, value in place.items() if isinstance(place, dict) else ():
            if isinstance(value, int | float) and key.endswith(LAUNCHES):
                place[key] = value * (new / old)
            scale(value)

    scale(document.get("efficiency"))


def _generic(document: Document) -> Document:
    """The generic terms, carried to the device of `document`. Its missing keys are left out."""
    base = read_document(Path(str(resources.files("hw_models"))) / f"{GENERIC}.toml")
    hbm = document.get("hbm")
    numbers: list[Any] = [document.get("cores"), document.get("clock_GHz")]
    numbers.append(hbm.get("bandwidth_GBps") if isinstance(hbm, dict) else None)
    if all(isinstance(x, int | float) and x > 0 for x in numbers):
        for terms in base["gemm"].values():
            terms.update(carried(terms, *numbers))
    return base


def load_machine(
    ref: str, device_changes: Changes | None = None, system_changes: Changes | None = None
) -> Machine:
    """A system or a lone device, by name or by path. Raises InputError."""
    devices = catalogue("device")
    document, path = machine_document(ref)
    if "tiers" not in document and "links" not in document and "device" not in document:
        if system_changes:
            key = next(iter(system_changes))
            raise InputError(
                f"system.{shortened(key)}: {ref} is one device; it has no system to change"
            )
        device = load_device(ref, device_changes)
        return Machine(device.name, System(device.name, 1, (), ()), device)
    _apply(document, system_changes or {}, str(path))
    spec = convert(document, SystemSpec, str(path))
    beside = path.with_name(f"{spec.device}.toml")
    if not os.path.isfile(beside) and spec.device not in devices:
        close = hint(spec.device, devices)
        raise InputError(f"{path}: key `device`: no device is called {quoted(spec.device)}{close}")
    device = load_device(str(beside) if os.path.isfile(beside) else spec.device, device_changes)
    system = checked(str(path), lambda: build_system(spec))
    return Machine(spec.name, system, device)


def machine_document(ref: str) -> tuple[Document, Path]:
    """The document of a device or a system, and its file or, of `4xl40s`, its name."""
    systems, devices = catalogue("system"), catalogue("device")
    if not _is_path(ref):
        box = box_of(ref, systems, devices)
        if box is not None:
            return box, Path(ref)
        if ref not in systems and ref not in devices:
            known = [*systems, *devices]
            raise InputError(f"no device or system is called {quoted(ref)}{hint(ref, known)}")
    path = systems.get(ref) or devices.get(ref) or _file(ref)
    return read_document(path), path


def stated(kind: str, ref: str, changes: Changes | None = None) -> tuple[Document, str]:
    """(keys and values as `--set` sees them, where they stand) of a model, device or system.

    A device is shown with its defaults; a lone device has no keys of a system.
    """
    if kind == "device":
        device = load_machine(ref, changes).device
        return msgspec.json.decode(msgspec.json.encode(device)), device.name
    if kind == "model":
        path = locate("model", ref)
        document = read_document(path)
        config = document if path.suffix == ".json" else document.get("config", {})
        _apply(config, changes or {}, str(path))
        return config, str(path)
    document, path = machine_document(ref)
    if "tiers" not in document and "links" not in document and "device" not in document:
        return {}, str(path)
    _apply(document, changes or {}, str(path))
    return document, str(path)


def look_up(document: Document, key: str, where: str) -> Value:
    """The value at a dotted key. Raises InputError with what is there."""
    *steps, last = key.split(".")
    place: Any = copy.deepcopy(document)
    for step in steps:
        place = _enter(place, step, key, where)
    if not isinstance(place, dict) or last not in place or isinstance(place[last], dict | list):
        known = [k for k, v in place.items() if not isinstance(v, dict | list)] if place else []
        raise InputError(f"{where}: --set {shortened(key)}: no such value{hint(last, known)}")
    value: Value = place[last]
    return value


def split_changes(changes: Changes) -> dict[str, dict[str, Value]]:
    """Changes by what they are about: keys `model.*`, `system.*`, and all others `device`."""
    parts: dict[str, dict[str, Value]] = {"model": {}, "system": {}, "device": {}}
    for key, value in changes.items():
        head, _, rest = key.partition(".")
        if head in ("model", "system", "device") and rest:
            parts[head][rest] = value
        else:
            parts["device"][key] = value
    return parts


def parse_change(text: str) -> tuple[str, Value]:
    """`key=value` as the command line takes it: true/false, a number, else text."""
    key, equals, raw = text.partition("=")
    if not equals or not key.strip() or not raw.strip():
        raise InputError(
            f"--set {quoted(text)}: write it as KEY=VALUE, e.g. hbm.bandwidth_GBps=6700"
        )
    return key.strip(), parse_value(raw.strip(), f"--set {quoted(text)}")


def parse_value(raw: str, where: str) -> Value:
    """A value as it is typed: true/false, a number, else text. `where` begins the error."""
    if raw.lower() in ("true", "false"):
        return raw.lower() == "true"
    if re.fullmatch(_NO_NUMBER, raw):
        raise InputError(f"{where}: infinity and NaN are no values; give a finite number")
    if not re.fullmatch(DECIMAL, raw):
        return raw
    try:
        return whole_number(raw) if re.fullmatch(WHOLE, raw) else decimal_number(raw)
    except ValueError as error:
        raise InputError(f"{where}: {error}") from None


def _apply(document: Document, changes: Changes, where: str) -> None:
    """Replace values at dotted keys. A step into an array is an index or an entry's name."""
    for key, value in changes.items():
        steps = key.split(".")
        place: Any = document
        for step in steps[:-1]:
            place = _enter(place, step, key, where)
        last = steps[-1]
        if isinstance(place, list):
            raise InputError(f"{where}: --set {shortened(key)}: name a key of that entry, too")
        place[last] = value


def _enter(place: Any, step: str, key: str, where: str) -> Any:
    if isinstance(place, dict):
        inner = place.setdefault(step, {})
        if isinstance(inner, dict | list):
            return inner
        raise InputError(
            f"{where}: --set {shortened(key)}: {quoted(step)} is a value ({quoted(inner)}), not "
            "a table"
        )
    names = [
        str(entry.get("name", i)) if isinstance(entry, dict) else str(i)
        for i, entry in enumerate(place)
    ]
    if step in names:
        return place[names.index(step)]
    if step.isascii() and step.isdecimal() and int(step) < len(place):
        return place[int(step)]
    raise InputError(f"{where}: --set {shortened(key)}: no entry {quoted(step)}{hint(step, names)}")


def _with(path: Path, changes: Changes | None) -> str:
    """The file, and what --set changed in it."""
    return f"{path} with --set {shortened(', '.join(changes))}" if changes else str(path)


def _is_path(ref: str) -> bool:
    return ref.endswith((".toml", ".json")) or "/" in ref or "\\" in ref


def locate(kind: str, ref: str) -> Path:
    """The file of a catalogue name or path. Raises InputError with what is known."""
    known = catalogue(kind)
    if ref in known:
        return known[ref]
    if _is_path(ref) or os.path.isdir(ref):
        return _file(ref)
    raise InputError(
        f"no {kind} is called {quoted(ref)}{hint(ref, known)}"
        + ("; a path to a config.json or a TOML works, too" if kind == "model" else "")
    )


def _file(ref: str) -> Path:
    path = Path(ref)
    if os.path.isdir(path):  # unlike Path.is_dir, false for a name that is too long
        path = path / "config.json"
    if not os.path.isfile(path):
        raise InputError(f"{path}: no such file; give a name of the catalogue or a path to a file")
    return path
