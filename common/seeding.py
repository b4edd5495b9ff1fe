"""Random numbers that depend on what they are for, never on which process draws them or when.

Every draw of the project starts from `generator(seed, purpose, *path)`: the run's seed, what the numbers
are for, and where in the run they belong (epoch, sample index). Two actors that roll the same sample out
therefore draw the same noise and the same tokens.
"""

import zlib

import numpy as np
import torch


def derive_seed(seed: int, purpose: str, *path: int) -> int:
    """A 63-bit seed for `purpose` at `path`, spread by numpy's SeedSequence."""
    entropy = [seed, zlib.crc32(purpose.encode()), *path]
    low, high = np.random.SeedSequence(entropy).generate_state(2, np.uint32)
    return int(low) | (int(high) & 0x7FFFFFFF) << 32


def generator(seed: int, purpose: str, *path: int) -> torch.Generator:
    """A CPU generator: numbers are drawn on the CPU and moved, so that a GPU sees the same ones."""
    return torch.Generator().manual_seed(derive_seed(seed, purpose, *path))
