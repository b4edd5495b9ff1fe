"""How far from its own place a changed token changes pixels: how precisely a reward map can assign credit.

One token of a grid is replaced by another code, both grids are decoded, and the squared change of the pixels is
summed by the distance in tokens, max(|rows|, |columns|), from that token. Two decoders: that of the digits,
and LlamaGen's VQ-16, including attention, with random weights on random codes. Without its published weights it
shows the effect of the architecture before training directs its attention.

A token's reward is a mean over the tokens around it (`advantage.radius`). A wider mean holds more of the token's
own change (`within`), and more of its neighbours' changes. `contrast` compares the two: the token's own share over
the root of the sum of the others' squared shares, in an infinite grid where all changes spread alike.

Letters: T image tokens, C, H, W channels and pixels.
"""

import argparse
import json
from collections.abc import Iterator
from time import perf_counter

import torch
from torch import Tensor
from torch.nn import functional as F

from actors.image_batch import read_readable
from actors.sources.build import build_source
from common.config.load import load_recipe
from common.models.families import TokenizerModule, build_tokenizer
from common.models.llamagen.spec import LlamaGenTokenizerSpec
from common.models.loading import load_tokenizer
from common.token_grid import pool_to_grid

CPU = torch.device("cpu")
SHOWN = 8  # distances with their own row


def change_by_distance(decode, tokens_T: Tensor, position: int, code: int, grid_size: int) -> Tensor:
    """Squared change of the pixels at distance 0, 1, … from the token at `position` when it becomes `code`."""
    changed_T = tokens_T.clone()
    changed_T[position] = code
    before_CHW, after_CHW = (decode(tokens[None])[0] for tokens in (tokens_T, changed_T))
    change_T = pool_to_grid((after_CHW - before_CHW).square().mean(dim=0)[None], grid_size)[0]
    places_T = torch.arange(grid_size**2)
    rows_T, columns_T = places_T // grid_size, places_T % grid_size
    distance_T = torch.maximum((rows_T - position // grid_size).abs(), (columns_T - position % grid_size).abs())
    return torch.zeros(grid_size).index_add(0, distance_T, change_T)


@torch.no_grad()
def measure(tokenizer: TokenizerModule, grids: list[Tensor], num_changes: int) -> dict[str, list[float]]:
    """Shares by distance of the squared change of all changed tokens together, and their running sum."""
    grid_size = round(tokenizer.num_tokens**0.5)
    draws = torch.Generator().manual_seed(0)
    total = torch.zeros(grid_size)
    for tokens_T in grids:
        for position in torch.randperm(len(tokens_T), generator=draws)[:num_changes].tolist():
            step = int(torch.randint(1, tokenizer.codebook_size, (1,), generator=draws))
            code = (int(tokens_T[position]) + step) % tokenizer.codebook_size  # any other code
            total += change_by_distance(tokenizer.decode, tokens_T, position, code, grid_size)
    shares = total / total.sum()
    by_radius = [contrast(shares.tolist(), radius) for radius in range(grid_size)]
    return {"share": shares.tolist(), "within": shares.cumsum(0).tolist(), "contrast": by_radius}


def digits(num_pictures: int) -> tuple[TokenizerModule, list[Tensor]]:
    """The tokenizer and the codes of held-out digits."""
    recipe = load_recipe("deploy/recipes/mnist.yaml", [])
    tokenizer = load_tokenizer(recipe, CPU)
    pixels_BCHW, _ = read_readable(build_source(recipe, "held_out"), range(num_pictures)).tensors(CPU)
    with torch.no_grad():
        return tokenizer, list(tokenizer.encode(pixels_BCHW))


def untrained_vq16(image_size: int, num_pictures: int) -> tuple[TokenizerModule, list[Tensor]]:
    """VQ-16 with random weights, and random codes."""
    torch.manual_seed(0)
    tokenizer = build_tokenizer(LlamaGenTokenizerSpec(size="vq16", checkpoint=""), image_size=image_size).eval()
    return tokenizer, list(torch.randint(tokenizer.codebook_size, (num_pictures, tokenizer.num_tokens)))


def contrast(shares: list[float], radius: int) -> float:
    """A token's own share over the others' shares of the change in the (2 · radius + 1)² tokens around it."""
    reach = len(shares) - 1
    line = torch.arange(-reach, reach + 1).abs()
    a_token = torch.tensor([share / max(1, 8 * distance) for distance, share in enumerate(shares)])
    spread_HW = a_token[torch.maximum(line[:, None], line)]  # 8 · distance tokens are at a distance
    window_HW = torch.ones(2 * radius + 1, 2 * radius + 1)
    caught_HW = F.conv2d(spread_HW[None, None], window_HW[None, None], padding=2 * radius)[0, 0]
    own = caught_HW[len(caught_HW) // 2, len(caught_HW) // 2]
    return float(own / (caught_HW.square().sum() - own.square()).sqrt())


def table(result: dict[str, list[float]]) -> Iterator[str]:
    grid_size = len(result["share"])
    yield f"{'distance':>8}{'share':>9}{'within':>9}{'contrast':>10}"
    for distance in range(min(SHOWN, grid_size)):
        share, within, weighed = (result[name][distance] for name in ("share", "within", "contrast"))
        yield f"{distance:>8}{share:>9.4f}{within:>9.4f}{weighed:>10.3f}"
    if grid_size > SHOWN:
        yield f"{f'{SHOWN} on':>8}{sum(result['share'][SHOWN:]):>9.4f}{1:>9.4f}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.locality", description=__doc__.split("\n")[0])
    parser.add_argument("--image-size", type=int, default=256, help="of VQ-16, in pixels (default 256)")
    parser.add_argument("--changes", type=int, default=8, help="changed tokens a picture for VQ-16 (default 8)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    results = {}
    decoders = {
        "digits": (*digits(num_pictures=32), 16),
        f"vq16, {options.image_size} px, random": (*untrained_vq16(options.image_size, 2), options.changes),
    }
    for name, (tokenizer, grids, num_changes) in decoders.items():
        start = perf_counter()
        results[name] = measure(tokenizer, grids, num_changes)
        print(f"{name}: {len(grids) * num_changes} changed tokens, {perf_counter() - start:.0f} s")
        print("\n".join(table(results[name])) + "\n", flush=True)
    print(json.dumps({"benchmark": "locality", **vars(options), "results": results}))


if __name__ == "__main__":
    main()
