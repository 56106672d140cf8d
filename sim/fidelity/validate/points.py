"""The parts of a comparison: a measured time, the predicted time, and the group of both."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec
import polars as pl

from hw_models.device import Device
from hw_models.system import System
from sim.cost.collectives import Network
from sim.cost.model import CostModel
from sim.errors import InputError, MemorywallError, one_line, shortened
from sim.fidelity.validate.cells import Row, sound
from sim.fidelity.validate.names import device_of, named_device, system_of
from sim.inputs.catalogue import Machine, load_device, load_machine
from workloads.model import Model
from workloads.ops import Op

TICKS_A_SECOND = 1e12
LLM = "LLM shapes"


class Place(msgspec.Struct, frozen=True):
    """Where a row belongs in the tables of errors.

    shapes: "LLM shapes" or "other shapes" where the source separates them, else "".
    shape: rows of one shape stand or fall together when some are held out.
    """

    set: str
    device: str
    dtype: str
    regime: str
    shapes: str = ""
    shape: str = ""


class ScoredPoint(msgspec.Struct, frozen=True):
    """One measured quantity of one row, in seconds. `predicted` is None where `reason` says why."""

    row: int
    quantity: str
    place: Place
    measured: float
    predicted: float | None
    reason: str = ""


class Profiled(msgspec.Struct, frozen=True):
    """The model, the device and the settings of a profile."""

    model: Model
    device: str
    dtype: str
    tp: int = 1


LONGEST_S = 100_000  # no kernel and no request takes longer


class MeasuredFile(msgspec.Struct, frozen=True):
    """One table of measurements, and the format that its columns tell."""

    path: Path
    form: MeasurementFormat
    frame: pl.DataFrame
    profile: Profiled | None = None

    @property
    def profiled(self) -> Profiled:
        """The setup of the run that a table belongs to."""
        assert self.profile is not None
        return self.profile

    @property
    def format(self) -> str:
        return self.form.name


class MeasurementFormat(msgspec.Struct, frozen=True):
    """A kind of table: its name, the columns that tell it, its reader, and what else that needs."""

    name: str
    columns: tuple[str, ...]
    read: Callable[[MeasuredFile, PredictionBench], Iterator[ScoredPoint]]
    more: tuple[str, ...] = ()

    def check(self, row: Row) -> None:
        """Raise InputError for a row that the reader cannot take."""
        sound(row, self.name, (*self.columns, *self.more))


class PredictionBench:
    """The devices that rows are priced on: by catalogue name, or the one of --device.

    `own` is a device at hand that all rows are priced on.
    """

    def __init__(self, device: str | None = None, own: Device | None = None) -> None:
        self.requested, self.own = named_device(device) if device else None, own
        self._costs: dict[tuple[str, str], CostModel] = {}
        self._machines: dict[tuple[str, int], Machine] = {}
        self._networks: dict[tuple[str, int], Network] = {}

    def device(self, name: str) -> str:
        """The device that a row is priced on: the one of --device, which may be a path, or that of
        the catalogue which the row names."""
        return self.own.name if self.own else self.requested or device_of(name)

    def load(self, device: str) -> Device:
        """The record of a device by `self.device(name)`."""
        return self.own or load_device(device)

    def costs(self, device: str, dtype: str) -> CostModel:
        """The cost model of a device by `self.device(name)`."""
        key = (device, dtype)
        if key not in self._costs:
            self._costs[key] = CostModel(self.load(device), dtype)
        return self._costs[key]

    def seconds(self, device: str, dtype: str, *ops: Op) -> float:
        """Operators one after the other on one device."""
        costs = self.costs(device, dtype)
        return sum(costs(op).duration for op in ops) / TICKS_A_SECOND

    def machine(self, device: str, gpus: int) -> Machine:
        """A system of `gpus` of a device. A device from a file takes the links of its namesake."""
        key = (device, gpus)
        if key not in self._machines:
            own = self.load(device)
            if gpus == 1:
                self._machines[key] = Machine(own.name, System(own.name, 1, (), ()), own)
            else:
                machine = load_machine(system_of(own.name, gpus))
                self._machines[key] = msgspec.structs.replace(machine, device=own)
        return self._machines[key]

    def network(self, device: str, gpus: int) -> Network:
        key = (device, gpus)
        if key not in self._networks:
            machine = self.machine(device, gpus)
            libraries = machine.device.efficiency.collectives
            self._networks[key] = Network(machine.system, libraries=libraries)
        return self._networks[key]

    def cluster(self, device: str) -> Machine:
        """Several nodes of a device."""
        key = (device, -1)
        if key not in self._machines:
            own = self.load(device)
            machine = load_machine(system_of(own.name, 9))
            self._machines[key] = msgspec.structs.replace(machine, device=own)
        return self._machines[key]

    def forget(self) -> None:
        """Drop what was priced; a table has many operators that no other has."""
        self._costs.clear()


PlaceOf = Callable[[Row, str], Place]  # of a row on a device
Price = Callable[[Row, str], float]  # seconds


class Reading(NamedTuple):
    """How a row names its device, its measured time in seconds, and the quantity measured."""

    device: Callable[[Row], str] = lambda row: row["device"]
    measured: Callable[[Row], float] = lambda row: float(row["latency_us"]) * 1e-6
    quantity: str = "latency"


USUAL = Reading()


def priced(
    source: MeasuredFile,
    bench: PredictionBench,
    place: PlaceOf,
    price: Price,
    reading: Reading = USUAL,
) -> Iterator[ScoredPoint]:
    """One point per row. A row that cannot be priced has the reason in its point."""
    device, measured, quantity = reading
    for number, row in enumerate(source.frame.iter_rows(named=True)):
        where = Place(source.format, "", "", "")
        try:
            source.form.check(row)
            where = Place(source.format, shortened(device(row)), "", "")
            name = bench.device(device(row))
            where = Place(source.format, name, "", "")
            where = place(row, name)
            time = positive_time(measured(row))
            yield ScoredPoint(number, quantity, where, time, price(row, name))
        except MemorywallError as error:
            yield ScoredPoint(number, quantity, where, float("nan"), None, str(error))
        except ValueError as error:  # a rule of the vocabulary of workloads
            yield ScoredPoint(number, quantity, where, float("nan"), None, one_line(str(error)))


def positive_time(seconds: float) -> float:
    """A measured time. Raises InputError for what cannot be one."""
    if not 0 < seconds < LONGEST_S:
        raise InputError(f"the measured time is not between 0 and {LONGEST_S:,} s")
    return seconds


def between(value: float, *bounds: tuple[float, str]) -> str:
    """The name of the first bound that `value` does not exceed."""
    for bound, name in bounds:
        if value <= bound:
            return name
    return bounds[-1][1]
