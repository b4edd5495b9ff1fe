"""Seconds to decode samples for the reward: dtype, memory format and compilation of the decoder, side by side.

Shape letters: N pictures, T tokens of one.
"""

import argparse
import json
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter

import torch
from torch import Tensor

from common.config.load import load_recipe
from common.models.families import TokenizerModule, build_tokenizer
from common.models.llamagen.spec import LlamaGenTokenizerSpec
from common.models.loading import load_tokenizer

DIGITS = Path(__file__).parents[1] / "deploy" / "recipes" / "mnist.yaml"
CONTIGUOUS, CHANNELS_LAST = torch.contiguous_format, torch.channels_last
FLOAT32, BFLOAT16 = torch.float32, torch.bfloat16


@dataclass(frozen=True)
class Form:
    name: str
    dtype: torch.dtype
    layout: torch.memory_format
    autocasts: bool = False
    compiled: bool = False

    def context(self, device: torch.device) -> AbstractContextManager:
        return torch.autocast(device.type, BFLOAT16) if self.autocasts else nullcontext()


FORMS = (
    Form("float32, contiguous", FLOAT32, CONTIGUOUS),
    Form("float32, channels_last", FLOAT32, CHANNELS_LAST),
    Form("bfloat16 autocast, channels_last", FLOAT32, CHANNELS_LAST, autocasts=True),
    Form("bfloat16 weights, contiguous", BFLOAT16, CONTIGUOUS),
    Form("bfloat16 weights, channels_last", BFLOAT16, CHANNELS_LAST),
    Form("float32, compiled", FLOAT32, CHANNELS_LAST, compiled=True),
    Form("bfloat16 weights, compiled", BFLOAT16, CHANNELS_LAST, compiled=True),
)


def decoders(
    tokenizer: TokenizerModule, num_pictures: int, device: torch.device, compiles: bool
) -> dict[str, Callable[[Tensor], Tensor]]:
    """For each form, tokens [N, T] to pictures float32."""

    def decoder(form: Form) -> Callable[[Tensor], Tensor]:
        of_layout = deepcopy(tokenizer).to(memory_format=form.layout)
        own = of_layout.for_scoring(form.dtype, num_pictures if form.compiled else None)

        def decode(tokens_NT: Tensor) -> Tensor:
            with form.context(device):
                return own.decode(tokens_NT).float()

        return decode

    return {form.name: decoder(form) for form in FORMS if compiles or not form.compiled}


@torch.no_grad()
def measure(
    tokenizer: TokenizerModule, num_pictures: int, device: torch.device, compiles: bool, repeats: int
) -> dict[str, dict[str, float]]:
    """Seconds a picture, and how far the pictures are from float32's, relative to their spread; by form."""
    tokens_NT = torch.randint(tokenizer.codebook_size, (num_pictures, tokenizer.num_tokens), device=device)
    forms = decoders(tokenizer, num_pictures, device, compiles)
    expected = forms[FORMS[0].name](tokens_NT)
    errors, seconds = {}, {name: list[float]() for name in forms}
    for name, decode in forms.items():  # compiles, and warms up
        errors[name] = float((decode(tokens_NT) - expected).square().mean().sqrt() / expected.std())
    for _ in range(repeats):
        for name, decode in forms.items():
            start = perf_counter()
            decode(tokens_NT)
            if device.type == "cuda":
                torch.cuda.synchronize()
            seconds[name].append((perf_counter() - start) / num_pictures)
    return {name: {"seconds": median(taken), "error": errors[name]} for name, taken in seconds.items()}


def main() -> None:
    options = _parser().parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    device = torch.device(options.device)
    vq16 = build_tokenizer(
        LlamaGenTokenizerSpec(size="vq16", checkpoint="none: random weights"), image_size=options.image_size
    )
    cases = {
        "digits": (load_tokenizer(load_recipe(DIGITS, []), device), options.digits, True),
        "vq16": (vq16.eval().requires_grad_(False).to(device), options.pictures, options.compile_vq16),
    }
    result = {"benchmark": "decoder", **vars(options)}
    for name, (tokenizer, num_pictures, may_compile) in cases.items():
        measured = measure(tokenizer, num_pictures, device, may_compile and not options.eager, options.repeats)
        base = measured[FORMS[0].name]["seconds"]
        print(f"\n{name}, {num_pictures} pictures at once\n{'':<34}{'ms a picture':>13}{'ratio':>7}{'error':>9}")
        for form, row in measured.items():
            print(f"{form:<34}{1e3 * row['seconds']:>13.2f}{row['seconds'] / base:>7.2f}{row['error']:>9.1e}")
        result[name] = measured
    print("\n" + json.dumps(result | {"load_average": os.getloadavg()[0], "torch": torch.__version__}))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.decoder", description=__doc__.split("\n")[0])
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default cpu)")
    parser.add_argument("--threads", type=int, default=1, help="PyTorch threads (default 1)")
    parser.add_argument(
        "--repeats", type=int, default=7, help="timed batches of each form, taking turns (default 7)"
    )
    parser.add_argument("--digits", type=int, default=64, help="digits decoded at once (default 64)")
    parser.add_argument("--pictures", type=int, default=4, help="pictures of VQ-16 decoded at once (default 4)")
    parser.add_argument("--image-size", type=int, default=64, help="their pixels a side (default 64)")
    parser.add_argument("--eager", action="store_true", help="compile nothing")
    parser.add_argument("--compile-vq16", action="store_true", help="compile VQ-16 too: minutes on a CPU")
    return parser


if __name__ == "__main__":
    main()
