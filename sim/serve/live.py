"""A request in the system, and what is written down of it when it leaves."""

from __future__ import annotations

import msgspec

from workloads.request import Request

# queue, compute, hbm, sram, link, launch, bubble, preempted: where the time of a request went
PARTS = ("queue", "compute", "hbm", "sram", "link", "launch", "bubble", "preempted")
QUEUE, PREEMPTED = 0, 7


class Live:
    """The changing state of one request. `computed` tokens of it lie in the KV cache."""

    __slots__ = (
        "account",
        "back",
        "base",
        "blocks",
        "computed",
        "epoch",
        "first",
        "generated",
        "hits",
        "joined",
        "key",
        "preemptions",
        "request",
        "scheduled",
        "share",
        "shared",
        "since",
        "snapshot",
        "swapped",
        "target",
    )

    def __init__(self, request: Request, key: tuple[float, int, int]) -> None:
        self.request, self.key = request, key
        self.computed = self.generated = self.blocks = self.hits = self.preemptions = 0
        self.target = request.prompt  # tokens to compute before the next token comes out
        self.scheduled = self.first = -1
        self.since = request.arrival  # when it began to wait
        self.base = self.epoch = self.share = self.joined = 0
        self.back = 0  # when its last batch came back, where stages are many
        self.shared: tuple[int, ...] = ()
        self.snapshot: tuple[int, ...] = ()
        self.swapped = False
        self.account = [0] * len(PARTS)


class Finished(msgspec.Struct, frozen=True):
    """One row of `requests`. Times in ticks."""

    index: int
    id: str
    replica: int
    arrival: int
    scheduled: int
    first_token: int
    last_token: int
    prompt: int
    output: int
    preemptions: int
    prefix_hit_tokens: int
    device_share: int
    account: tuple[int, ...]

    @property
    def e2e(self) -> int:
        return self.last_token - self.arrival

    @property
    def ttft(self) -> int:
        return self.first_token - self.arrival

    @property
    def tpot(self) -> float:
        """Ticks per token after the first; 0 with one token."""
        if self.output < 2:
            return 0.0
        return (self.last_token - self.first_token) / (self.output - 1)


class StepRow(msgspec.Struct, frozen=True, gc=False):
    """One row of `steps`: a batch in the first stage of a replica. Times in ticks.

    `states` are compute, hbm, sram, link, launch of the stages together; with one stage they
    sum to `duration`, with several to the time that the stages worked on it.
    """

    start: int
    duration: int
    prefill_tokens: int
    decode_tokens: int
    running: int
    waiting: int
    kv_blocks: int
    states: tuple[int, int, int, int, int]
    flops: int
    hbm_bytes: int


class StageRow(msgspec.Struct, frozen=True, gc=False):
    """One row of `stages`: a step in one pipeline stage. Times in ticks.

    `states` are compute, hbm, sram, link, launch and sum to the row's duration; it begins with
    what the stage waits for hidden states that are under way.
    """

    step: int
    stage: int
    start: int
    states: tuple[int, int, int, int, int]
    flops: int
    hbm_bytes: int


MOST_REFUSED = 1000  # requests that a run names; it counts the others


class Refused(msgspec.Struct, frozen=True):
    """A request that can never fit: the `tokens` of its prompt and output exceed the memory."""

    index: int
    id: str
    tokens: int

    def __str__(self) -> str:
        return f"{self.index}{f' ({self.id})' if self.id else ''}: {self.tokens:,} tokens"


class Outcome(msgspec.Struct, frozen=True):
    """What became of a replica. `stages` has the seven states of each pipeline stage, summing
    to `end`, the tick at which the replica finished.

    held: of several stages, whose batches overlap: the blocks in use, summed over the ticks in
    which a batch was under way, and these ticks. With one stage the steps tell.
    """

    number: int
    end: int
    stages: tuple[tuple[int, int, int, int, int, int, int], ...]
    steps: int
    finished: int
    refused: int
    preempted: int
    flops: int
    hbm_bytes: int
    tokens_in: int
    tokens_out: int
    held: tuple[int, int] | None = None
