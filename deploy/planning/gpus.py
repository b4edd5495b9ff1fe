"""The abilities of GPUs according to data sheets, and the share of them that this work is assumed to reach."""

import math
from dataclasses import dataclass

from common.errors import UserError

TERA = 10**12
GIGA = 10**9


@dataclass(frozen=True)
class Shares:
    """Of the peak rate that each kind of work reaches; compiled under `compute.compile`."""

    transformer: float
    compiled_transformer: float
    convolution: float
    compiled_decoder: float


@dataclass(frozen=True)
class Gpu:
    """Peak rates without sparsity, in FLOP per second; bytes are decimal."""

    name: str
    bfloat16: float  # tensor cores
    tf32: float  # tensor cores: PyTorch's default for float32 convolutions
    float32: float  # PyTorch's default for float32 matrix products
    memory_bytes: int
    bytes_per_second: float  # of its memory
    shares: Shares


# Between products a GPU's multipliers wait while norms, activations and rotations go through its memory, the more
# so the faster they are.
ASSUMED = Shares(transformer=0.35, compiled_transformer=0.45, convolution=0.25, compiled_decoder=0.35)
HOPPER = Shares(transformer=0.17, compiled_transformer=0.25, convolution=0.20, compiled_decoder=0.30)
"""Of the paper's XXL recipe on one H100, measured (docs/log.md); taken for Blackwell too."""

# Assumptions, too.
MEMORY_UTILISATION = 0.7  # of the memory's rate, in the optimizer step
COPY_BYTES_PER_SECOND = 20e9  # between a GPU and pinned memory
STORE_BYTES_PER_SECOND = 3e9  # of weights into the object store, or out of it to an actor; beside the training
STATE_BYTES_PER_SECOND = 1e9  # of a checkpoint's state from a rank into the object store


def _gpu(
    name: str,
    bfloat16: float,
    tf32: float,
    float32: float,
    gigabytes: int,
    gigabytes_a_second: int,
    shares: Shares = ASSUMED,
) -> Gpu:
    rates = bfloat16 * TERA, tf32 * TERA, float32 * TERA
    return Gpu(name, *rates, gigabytes * GIGA, gigabytes_a_second * float(GIGA), shares)


OWN_KEYS = ("tflops", "gb", "gbps")
EXAMPLE = "tflops=312,gb=80,gbps=2039"

# From NVIDIA's data sheets: L4 (2023), A10 and A10G (2021), A40 (2020), L40S (2023), A100 SXM (2021), H100 SXM
# (2023), H200 SXM (2024), RTX 4090 (2022, with accumulation in float32), B200 (2024, of a DGX). If a sheet gives
# tensor cores only with sparsity, half of that.
GPUS = {
    "l4": _gpu("NVIDIA L4, 24 GB", 121, 60, 30.3, 24, 300),
    "a10": _gpu("NVIDIA A10, 24 GB", 125, 62.5, 31.2, 24, 600),
    "a10g": _gpu("NVIDIA A10G, 24 GB", 70, 35, 35, 24, 600),
    "a40": _gpu("NVIDIA A40, 48 GB", 149.7, 74.8, 37.4, 48, 696),
    "l40s": _gpu("NVIDIA L40S, 48 GB", 362, 183, 91.6, 48, 864),
    "a100-40gb": _gpu("NVIDIA A100 SXM, 40 GB", 312, 156, 19.5, 40, 1555),
    "a100": _gpu("NVIDIA A100 SXM, 80 GB", 312, 156, 19.5, 80, 2039),
    "h100": _gpu("NVIDIA H100 SXM, 80 GB", 989, 494, 67, 80, 3350, HOPPER),
    "h200": _gpu("NVIDIA H200 SXM, 141 GB", 989, 494, 67, 141, 4800, HOPPER),
    "rtx4090": _gpu("NVIDIA GeForce RTX 4090, 24 GB", 165.2, 82.6, 82.6, 24, 1008),
    "b200": _gpu("NVIDIA B200 SXM, 180 GB", 2250, 1125, 75, 180, 8000, HOPPER),
}


def gpu_named(text: str) -> Gpu:
    """One of the table, or one of your own as in `tflops=312,gb=80,gbps=2039`. Raises UserError."""
    if "=" in text:
        return _own_gpu(text)
    if text.lower() not in GPUS:
        raise UserError(
            f"--gpu is {text}: the known ones are {', '.join(GPUS)}; another one is described by its numbers, "
            f"as in {EXAMPLE}"
        )
    return GPUS[text.lower()]


def _own_gpu(text: str) -> Gpu:
    """bfloat16 tensor cores in TFLOP/s, memory in GB, its rate in GB/s; TF32 counts half, float32 a quarter."""
    try:
        numbers = {key: float(number) for key, number in (part.split("=") for part in text.split(","))}
        if set(numbers) != set(OWN_KEYS) or not all(0 < number < math.inf for number in numbers.values()):
            raise ValueError
    except ValueError:
        raise UserError(f"--gpu is {text}: give {', '.join(OWN_KEYS)}, each above 0, as in {EXAMPLE}") from None
    tflops, gigabytes, rate = (numbers[key] for key in OWN_KEYS)
    name = f"own GPU, {gigabytes:g} GB"
    tera = tflops * TERA
    return Gpu(name, tera, tera / 2, tera / 4, int(gigabytes * GIGA), rate * GIGA, ASSUMED)


@dataclass(frozen=True)
class Reached:
    """The share of a GPU's peak rate that each kind of work is taken to reach."""

    transformer: float
    convolution: float
    decoder: float


@dataclass(frozen=True)
class Utilisation:
    """Shares given by hand; None: the GPU's own."""

    transformer: float | None = None
    convolution: float | None = None

    def on(self, gpu: Gpu, compiled: bool) -> Reached:
        own = gpu.shares
        return Reached(
            transformer=self.transformer or (own.compiled_transformer if compiled else own.transformer),
            convolution=self.convolution or own.convolution,
            decoder=self.convolution or (own.compiled_decoder if compiled else own.convolution),
        )


def utilisation_of(text: str | None) -> Utilisation:
    """Parse `0.4`, for both, or `transformer=0.4,convolution=0.3`. Raises UserError."""
    if text is None:
        return Utilisation()
    kinds = tuple(Utilisation.__dataclass_fields__)
    pairs = [part.split("=") for part in text.split(",")] if "=" in text else [[kind, text] for kind in kinds]
    try:
        shares = {kind: float(share) for kind, share in pairs}
        if not set(shares) <= set(kinds) or not all(0 < share <= 1 for share in shares.values()):
            raise ValueError
    except ValueError:
        raise UserError(
            f"--utilisation is {text}: give a share above 0 and at most 1, as in 0.4, or one a kind, as in "
            "transformer=0.4,convolution=0.3"
        ) from None
    return Utilisation(**shares)
