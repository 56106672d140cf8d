"""Mechanisms of named what-ifs for which a scenario has no key.

Each uses what the simulator has: operators that are rewritten before they are priced, passes that
are really run, shortened models. Each states its formula.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Literal

import msgspec

from hw_models.device import Device
from sim.mapping.priced import Rewrite
from workloads.model import Record
from workloads.ops import Op, Traffic

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Positive = Annotated[float, msgspec.Meta(gt=0)]
PRUNED = frozenset({"projection", "ffn", "experts"})  # tables, head and norms stay as they are


class Sparsity(Record, frozen=True, kw_only=True):
    """Pruned weights of projections and feed-forward blocks; `density` of them are kept.

    store: what lies in HBM for a weight of b bits: "dense" b (zeros too), "bitmask" b density + 1,
    "2:4" (two of four kept) (b + 2) density. skip: the arithmetic leaves zeros out, so that a
    product (m x k)(k x n) takes density k steps; else they are multiplied.
    """

    density: Share
    store: Literal["dense", "bitmask", "2:4"] = "dense"
    skip: bool = False

    def __post_init__(self) -> None:
        if self.store == "2:4" and self.density != 0.5:
            raise ValueError(f"density = {self.density}: 2:4 keeps half of the weights, 0.5")

    def bits(self, bits: int) -> float:
        """Bits in HBM a weight."""
        if self.store == "dense":
            return bits
        return bits * self.density + (1 if self.store == "bitmask" else 2 * self.density)

    def rewrite(self, op: Op) -> Op:
        """An operator with its weights pruned."""
        if op.kind not in PRUNED or not op.gemms or not op.traffic.weights:
            return op
        bits = op.gemms[0].b_bits
        weights = math.ceil(op.traffic.weights * self.bits(bits) / bits)
        pruned = msgspec.structs.replace(
            op, traffic=msgspec.structs.replace(op.traffic, weights=weights)
        )
        if not self.skip:
            return pruned
        gemms = tuple(
            msgspec.structs.replace(g, k=max(1, math.ceil(g.k * self.density))) for g in op.gemms
        )
        return msgspec.structs.replace(
            pruned, gemms=gemms, matrix_flops=sum(g.flops for g in gemms)
        )


class Tiers(Record, frozen=True, kw_only=True):
    """A share of every weight and of the KV cache lies in a far memory of lower bandwidth.

    x bytes of which a share s is far take x (1 - s) / B + x s / F one after the other, and the
    longer of the two if both tiers are read `together`. Said to the price of an operator as the
    bytes of HBM that take as long, so MBU counts these.
    """

    bandwidth_GBps: Positive
    weights: Share = 0.0
    kv: Share = 0.0
    together: bool = False

    def rewriter(self, device: Device) -> Rewrite:
        """The rewrite for a device."""
        slower = device.hbm.bandwidth_GBps / self.bandwidth_GBps

        def scaled(nbytes: int, share: float) -> int:
            parts = (1 - share, share * slower)
            return math.ceil(nbytes * (max(parts) if self.together else sum(parts)))

        def rewrite(op: Op) -> Op:
            t = op.traffic
            traffic = Traffic(
                weights=scaled(t.weights, self.weights),
                read=t.read,
                written=t.written,
                kv_read=scaled(t.kv_read, self.kv),
                kv_written=scaled(t.kv_written, self.kv),
            )
            return msgspec.structs.replace(op, traffic=traffic)

        return rewrite


class Speculative(Record, frozen=True, kw_only=True):
    """A small model drafts `tokens` tokens, the large one verifies them in one pass of tokens + 1.

    At an acceptance rate a, a cycle yields (1 - a^(k+1)) / (1 - a) tokens on the mean (Leviathan
    et al. 2023, arXiv 2211.17192, eq. 1), one at least. Both models' passes are run, with the
    contexts that the cycles come to.
    """

    draft: str
    tokens: Annotated[int, msgspec.Meta(gt=0, le=64)] = 4
    acceptance: Share = 0.8

    @property
    def expected(self) -> float:
        """Tokens a cycle."""
        a, k = self.acceptance, self.tokens
        return k + 1.0 if a == 1 else (1 - a ** (k + 1)) / (1 - a)


class Exits(Record, frozen=True, kw_only=True):
    """Tokens leave early: `at` these shares of the layers, with the `shares` of tokens that do.

    At each exit that a token reaches the LM head looks whether it is sure (CALM, Schuster et al.
    2022, arXiv 2207.07061). A batch runs on until its last sequence has left: with F the
    cumulated shares, it leaves at exit j or before with F(j)^batch. What skipped layers would
    have put into the KV cache is not made up for.
    """

    at: tuple[Share, ...]
    shares: tuple[Share, ...]

    def __post_init__(self) -> None:
        if len(self.at) != len(self.shares) or list(self.at) != sorted(set(self.at)):
            raise ValueError(f"at = {list(self.at)}: rising, with as many shares")
        if not self.at or self.at[0] <= 0 or self.at[-1] != 1:
            raise ValueError(f"at = {list(self.at)}: above 0, and the last exit is the end, 1.0")
        if abs(sum(self.shares) - 1) > 1e-9:
            raise ValueError(f"shares = {list(self.shares)} sum to {sum(self.shares):g}, not to 1")

    def layers(self, depth: int) -> list[int]:
        """The layers of each exit in a model of `depth` layers."""
        return [max(1, round(share * depth)) for share in self.at]

    def weights(self, batch: int) -> list[float]:
        """Probability that a batch leaves at each exit."""
        sums = [min(1.0, sum(self.shares[: i + 1])) ** batch for i in range(len(self.shares))]
        return [b - a for a, b in zip([0.0, *sums[:-1]], sums, strict=True)]


class Area(Record, frozen=True, kw_only=True):
    """Chip area moved from multipliers to the shared cache (`move` < 0: the other way).

    A device of rate R (FLOP/s) at clock f has R / 2f multiply-adds; a share `move` of them, of
    `mac_um2` each, makes room for bits of `bit_um2`. Both areas are of one technology; wires and
    periphery are left out on both sides.
    """

    move: Annotated[float, msgspec.Meta(gt=-10, lt=1)]
    mac_um2: Positive
    bit_um2: Positive
    dtype: str

    def changes(self, device: Device) -> list[str]:
        """The same as changes of a scenario. Raises ValueError."""
        rate = device.matrix.flops(self.dtype)
        shared = [i for i, m in enumerate(device.on_chip) if m.scope == "shared"]
        if rate is None or not shared:
            raise ValueError(f"{device.name} has no {self.dtype} units or no shared cache")
        macs = rate / 2 / (device.clock_GHz * 1e9)
        cache = device.on_chip[shared[-1]].capacity_KiB
        more = self.move * macs * self.mac_um2 / self.bit_um2 / 8 / 1024
        if cache + more <= 0:
            raise ValueError(f"move = {self.move}: takes more than the cache of {cache:,.0f} KiB")
        left = 1 - self.move
        rates = [f"matrix.TFLOPS.{d}={x * left!r}" for d, x in device.matrix.TFLOPS.items()]
        return [*rates, f"on_chip.{shared[-1]}.capacity_KiB={cache + more!r}"]


class LocalBuffers(Record, frozen=True, kw_only=True):
    """A scratchpad for inputs and an accumulator for outputs, see `sim.studies.whatif.buffers`.

    overlap: loads hide under the arithmetic, perfectly; else they stand in front of it.
    """

    scratchpad_KiB: Positive
    accumulator_KiB: Positive
    overlap: bool = True


def combined(*rewrites: Callable[[Op], Op]) -> Rewrite:
    """One after the other."""

    def rewrite(op: Op) -> Op:
        for one in rewrites:
            op = one(op)
        return op

    return rewrite
