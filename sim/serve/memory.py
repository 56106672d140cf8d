"""Paged KV memory of a replica: blocks, what fits, and prefixes kept for later requests.

Source of the scheme: Kwon et al. 2023 (vLLM, arXiv 2309.06180), section 4. A block holds
`block_size` tokens of one sequence. Prefix caching keeps the blocks of finished prompts, by the
hash ids of the trace, until room is needed (least recently used first).
"""

from __future__ import annotations

from collections import OrderedDict

import msgspec

from sim.errors import OutOfMemory
from sim.mapping.memory import Footprint, Widest, footprints
from sim.scenario import Resolved
from workloads.batch import Batch
from workloads.request import Request


class Capacity(msgspec.Struct, frozen=True):
    """The arithmetic of the KV capacity of a device, bytes; printed at the start of a run."""

    hbm: int
    reserve: int
    weights: int
    activations: int
    block_bytes: int
    blocks: int
    block_size: int
    given: bool = False  # by the user, instead of what fits

    def sentence(self) -> str:
        """The sum, in GB, and what it comes to."""
        parts = [f"{x / 1e9:.2f}" for x in (self.hbm, self.reserve, self.weights, self.activations)]
        if not self.block_bytes:
            return f"weights {self.weights / 1e9:.2f} of {self.hbm / 1e9:.2f} GB HBM, no KV cache"
        left = self.hbm - self.reserve - self.weights - self.activations
        if self.given:
            return f"KV: {self.blocks:,} blocks of {self.block_size} tokens, as given"
        return (
            f"KV: HBM {parts[0]} - reserve {parts[1]} - weights {parts[2]} - activations {parts[3]}"
            f" = {left / 1e9:.2f} GB = {self.blocks:,} blocks of {self.block_size} tokens "
            f"({self.blocks * self.block_size:,} tokens)"
        )


def kv_capacity(
    resolved: Resolved, max_tokens: int, utilization: float, block_size: int
) -> Capacity:
    """Blocks that fit beside weights and the activations of a step of `max_tokens` tokens.

    The fullest stage decides. Raises OutOfMemory with the sum if not one block fits.
    """
    scenario, device = resolved.scenario, resolved.machine.device
    split = msgspec.structs.replace(scenario.parallelism, dp=1, microbatches=1)
    widest = Batch.prefill(1, max_tokens) if resolved.model.decoder else Batch.encode(1, max_tokens)
    capacities = []

    def footprint(context: int) -> list[Footprint]:
        load = Widest(widest, context)
        return footprints(
            resolved.model, device, split, load, resolved.precision, scenario.lowering
        )

    for one, more in zip(footprint(block_size), footprint(2 * block_size), strict=True):
        # A window caps what a layer keeps, yet a pager gives every layer the same blocks.
        block = max(one.kv, more.kv - one.kv)
        reserve = round(one.capacity * (1 - utilization))
        left = one.capacity - reserve - one.weights - one.activations
        blocks = left // block if block else 2**40
        capacities.append(
            Capacity(one.capacity, reserve, one.weights, one.activations, block, blocks, block_size)
        )
    tightest = min(capacities, key=lambda c: c.blocks)
    if tightest.blocks < 1:
        raise OutOfMemory(
            f"{resolved.model.name} leaves no room for a KV block on {device.name}: "
            f"{tightest.sentence()}; raise tp or pp, or lower the bits"
        )
    return tightest


class Blocks:
    """Counts of blocks: in use, kept for their prefix, free. Never more than `total`."""

    def __init__(self, total: int, block_size: int, prefix_caching: bool) -> None:
        self.total, self.size, self.caching = total, block_size, prefix_caching
        self.used = 0
        self.kept: OrderedDict[int, int] = OrderedDict()  # hash -> blocks, nobody uses them
        self.kept_blocks = 0
        self.shared: dict[int, int] = {}  # hash -> requests that use it

    @property
    def free(self) -> int:
        """Blocks that can be had, kept ones included."""
        return self.total - self.used

    def needed(self, tokens: int) -> int:
        """Blocks that `tokens` tokens take."""
        return -(-tokens // self.size)

    def per_hash(self, request: Request) -> int:
        """Blocks that one hash of a request's prompt stands for."""
        return request.hash_tokens // self.size

    def take(self, count: int) -> None:
        """Put `count` blocks to use, dropping kept prefixes where they are in the way."""
        self.used += count
        while self.used + self.kept_blocks > self.total:
            _, blocks = self.kept.popitem(last=False)
            self.kept_blocks -= blocks

    def give(self, count: int) -> None:
        """Take `count` blocks back."""
        self.used -= count

    def hits(self, hashes: tuple[int, ...]) -> int:
        """Leading hashes whose blocks are there."""
        count = 0
        for one in hashes:
            if one not in self.shared and one not in self.kept:
                break
            count += 1
        return count

    def revived(self, hashes: tuple[int, ...], each: int) -> int:
        """Blocks that come back into use if these kept or shared prefixes are used."""
        return each * sum([one not in self.shared for one in hashes])

    def share(self, hashes: tuple[int, ...], each: int) -> None:
        """Use prefixes that are there, of `each` blocks."""
        for one in hashes:
            if one in self.shared:
                self.shared[one] += 1
            else:
                del self.kept[one]
                self.kept_blocks -= each
                self.used += each
                self.shared[one] = 1

    def publish(self, one: int) -> bool:
        """Offer a computed prefix block to others; False if there is one already."""
        if one in self.shared or one in self.kept:
            return False
        self.shared[one] = 1
        return True

    def release(self, hashes: tuple[int, ...], each: int) -> None:
        """Stop using prefixes; the last user leaves them to the cache.

        The end of a chain is put away first, so that it is dropped first: a block without
        those before it is of no use.
        """
        for one in reversed(hashes):
            self.shared[one] -= 1
            if not self.shared[one]:
                del self.shared[one]
                self.used -= each
                self.kept[one] = each
                self.kept_blocks += each
