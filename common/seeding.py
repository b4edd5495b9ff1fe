"""Random numbers that depend on their purpose, never on the process that draws them or the time.

Every draw of the project starts from `generator(seed, purpose, *path)`: the run's seed, the purpose, and the place
in the run (epoch, sample index). Two actors that roll out one sample therefore draw the same noise and tokens.
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
    """A CPU generator. Numbers are drawn on the CPU and then moved, so that a GPU gets the same ones."""
    return torch.Generator().manual_seed(derive_seed(seed, purpose, *path))
