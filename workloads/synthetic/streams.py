"""Named random generators from one seed.

Each use of chance draws from a stream of its own, so that a change of the arrivals leaves
the lengths as they were.
"""

from __future__ import annotations

from hashlib import sha256

import numpy as np

# Numbers drawn at once: enough to hide the cost of a call, little enough to hold.
CHUNK = 8192


def generator(seed: int, name: str) -> np.random.Generator:
    """The generator of the stream `name` of `seed`; equal arguments give equal numbers.

    The name is hashed by SHA-256, not by Python's `hash`, which differs between processes.
    PCG64 is named because numpy's default may change.
    """
    if not 0 <= seed < 2**64:
        raise ValueError(f"seed = {seed}: must be a whole number from 0 to 2**64 - 1")
    digest = sha256(name.encode()).digest()
    key = tuple(int.from_bytes(digest[i : i + 4], "little") for i in range(0, 16, 4))
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=key)))
