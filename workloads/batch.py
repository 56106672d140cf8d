"""What one forward pass works on: sequences with new and cached tokens.

One shape serves every phase. An encoder pass has only source tokens or only new tokens,
a prefill has new tokens and nothing cached, a chunk has both, a decode step has one new
token behind a long cache; a batch may mix them.
"""

from __future__ import annotations

from typing import Literal

from workloads.model import Count, Record, Size

Phase = Literal["encode", "prefill", "decode", "mixed"]


class Sequence(Record, frozen=True, kw_only=True):
    """One sequence in a pass.

    new: tokens computed now by the stack that generates (or by the lone encoder).
    cached: earlier tokens whose keys and values lie in the cache.
    source: tokens that the encoder of an encoder-decoder reads in this pass.
    source_cached: encoder tokens of earlier passes whose cross keys and values are cached.
    logits: rows of this sequence that need logits (0 for a chunk that is not the last).
    """

    new: Size
    cached: Count = 0
    source: Count = 0
    source_cached: Count = 0
    logits: Count = 1

    def __post_init__(self) -> None:
        if self.logits > self.new:
            raise ValueError(
                f"logits = {self.logits} rows are more than the {self.new} new tokens; "
                "at most one row per new token"
            )

    @property
    def context(self) -> int:
        """Tokens that the last new token sees, itself included."""
        return self.cached + self.new


class Group(Record, frozen=True, kw_only=True):
    """`count` equal sequences."""

    sequence: Sequence
    count: Size = 1


class Batch(Record, frozen=True, kw_only=True):
    """The sequences of one forward pass, equal ones grouped."""

    groups: tuple[Group, ...]

    def __post_init__(self) -> None:
        if not self.groups:
            raise ValueError("a batch needs at least one sequence")

    @staticmethod
    def of(*sequences: Sequence) -> Batch:
        """A batch of these sequences; equal ones are grouped, the order of first sight kept."""
        counts: dict[Sequence, int] = {}
        for sequence in sequences:
            counts[sequence] = counts.get(sequence, 0) + 1
        return Batch(groups=tuple(Group(sequence=s, count=n) for s, n in counts.items()))

    @staticmethod
    def uniform(count: int, sequence: Sequence) -> Batch:
        """`count` copies of `sequence`."""
        return Batch(groups=(Group(sequence=sequence, count=count),))

    @staticmethod
    def encode(batch: int, seq: int) -> Batch:
        """`batch` sequences of `seq` tokens through an encoder."""
        return Batch.uniform(batch, Sequence(new=seq, logits=0))

    @staticmethod
    def prefill(batch: int, prompt: int, *, cached: int = 0, source: int = 0) -> Batch:
        """`batch` prompts (or chunks behind `cached` tokens), one row of logits each."""
        return Batch.uniform(batch, Sequence(new=prompt, cached=cached, source=source))

    @staticmethod
    def decode(batch: int, context: int, *, source: int = 0) -> Batch:
        """`batch` sequences of one new token each that sees `context` tokens with itself."""
        return Batch.uniform(batch, Sequence(new=1, cached=context - 1, source_cached=source))

    def __add__(self, other: Batch) -> Batch:
        return Batch(groups=self.groups + other.groups)

    def split(self, parts: int) -> list[Batch]:
        """`parts` batches of equal size, the first ones taking one sequence more.

        Raises ValueError if there are fewer sequences than parts.
        """
        if parts > self.size:
            raise ValueError(
                f"a batch of {self.size} cannot be split into {parts} parts; "
                f"use a batch of at least {parts}"
            )
        queue = [(g.sequence, g.count) for g in self.groups]
        batches = []
        for part in range(parts):
            want = self.size // parts + (1 if part < self.size % parts else 0)
            chosen = []
            while want:
                sequence, have = queue.pop(0)
                chosen.append(Group(sequence=sequence, count=min(have, want)))
                if have > want:
                    queue.insert(0, (sequence, have - want))
                want -= min(have, want)
            batches.append(Batch(groups=tuple(chosen)))
        return batches

    @property
    def size(self) -> int:
        """Sequences."""
        return sum(g.count for g in self.groups)

    @property
    def tokens(self) -> int:
        """New tokens."""
        return sum(g.count * g.sequence.new for g in self.groups)

    @property
    def source_tokens(self) -> int:
        """Tokens that an encoder of an encoder-decoder reads now."""
        return sum(g.count * g.sequence.source for g in self.groups)

    @property
    def logits(self) -> int:
        """Rows that need logits."""
        return sum(g.count * g.sequence.logits for g in self.groups)

    @property
    def phase(self) -> Phase:
        """`decode` if every sequence has one new token, `prefill` if none, else `mixed`."""
        single = {g.sequence.new == 1 for g in self.groups}
        return "mixed" if len(single) == 2 else ("decode" if single == {True} else "prefill")
