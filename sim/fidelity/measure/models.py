"""Whole models run for real: transformers, random weights, from the catalogue's own configs.

Nothing is downloaded. A decoder's first pass makes the logits of its last token alone, and grows a
cache that each of the following steps concatenates to.
"""

from __future__ import annotations

import time
from importlib import import_module
from typing import Any

import msgspec

from sim.errors import InputError
from sim.fidelity.measure.cpu import keep_freed_memory
from sim.fidelity.measure.tables import Timing
from sim.fidelity.measure.timer import Clock, summary
from sim.inputs.catalogue import Changes, locate
from sim.inputs.documents import convert, read_document
from workloads.entry import CatalogueModel

# Token ids of words that nobody generates here; those of the real vocabularies may not exist.
NO_WORDS = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": 0}
CLASSES = {"bert": ("BertConfig", "BertModel"), "gpt2": ("GPT2Config", "GPT2LMHeadModel")}


class Timed(msgspec.Struct, frozen=True):
    """A pass of a model: `encode` or `prefill` of `tokens`, or `decode` behind as many."""

    model: str
    phase: str
    tokens: int
    timing: Timing


class RealModel:
    """A catalogue model as a PyTorch module in fp32 on the CPU, eager; `changes` replace keys of
    its config, `threads` 0 leaves their number as it is. Times are by `clock`."""

    def __init__(
        self,
        name: str,
        changes: Changes | None = None,
        threads: int = 0,
        clock: Clock = time.perf_counter,
    ) -> None:
        self.name, self.clock = name, clock
        entry = convert(read_document(locate("model", name)), CatalogueModel, name)
        if entry.architecture not in CLASSES:
            raise InputError(f"{name}: only {', '.join(CLASSES)} are run for real")
        keep_freed_memory()  # as kernels are measured
        self.torch, transformers = import_module("torch"), import_module("transformers")
        config, model = (getattr(transformers, c) for c in CLASSES[entry.architecture])
        self.decodes = entry.architecture == "gpt2"
        values = entry.config | dict(changes or {})
        self.vocabulary = int(values["vocab_size"])
        self.torch.manual_seed(0)
        if threads:
            self.torch.set_num_threads(threads)
        self.module = model(config(**values, **NO_WORDS)).eval()

    def passes(self, tokens: int, repeats: int, steps: int) -> list[Timed]:
        """The pass over `tokens`, timed `repeats` times, and of a decoder the `steps` behind each
        of them. The first of each warms up and does not count."""
        torch, clock = self.torch, self.clock
        ids = torch.randint(0, self.vocabulary, (1, tokens))
        seconds: list[float] = []
        each: list[float] = []
        with torch.no_grad():
            for number in range(repeats + 1):
                begin = clock()
                options = {"use_cache": True, "logits_to_keep": 1} if self.decodes else {}
                output = self.module(ids, **options)
                spent = clock() - begin
                if number:
                    seconds.append(spent)
                each += self._decode(output, steps)[1:] if self.decodes and number else []
        first = Timed(self.name, "prefill" if self.decodes else "encode", tokens, summary(seconds))
        return [first, Timed(self.name, "decode", tokens, summary(each))] if each else [first]

    def _decode(self, output: Any, steps: int) -> list[float]:
        spent = []
        for _ in range(steps):
            begin = self.clock()
            token = output.logits[:, -1:].argmax(-1)
            output = self.module(token, past_key_values=output.past_key_values, use_cache=True)
            spent.append(self.clock() - begin)
        return spent
