"""The tokenizer against the published implementation: tests/data/llamagen, made in float32 on a CPU."""

from collections.abc import Callable

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from common.errors import RecipeError
from common.models.llamagen import vq_tokenizer
from common.models.llamagen.spec import LlamaGenTokenizerSpec, TokenizerSize
from common.models.llamagen.vq_tokenizer import VQTokenizer
from common.paths import CHECKOUT

DATA = CHECKOUT / "tests" / "data" / "llamagen"
SMALL = TokenizerSize(
    channels=32,
    channel_multipliers=(1, 2),
    num_res_blocks=1,
    z_channels=16,
    codebook_size=50,
    codebook_dim=4,
)


def small(image_size: int = 8) -> VQTokenizer:
    torch.manual_seed(0)
    return VQTokenizer(LlamaGenTokenizerSpec(size=SMALL, checkpoint=""), image_size=image_size).eval()


@pytest.mark.parametrize(("size", "tag", "num_tokens"), [("vq16", "vq_ds16", 16), ("vq8", "vq_ds8", 64)])
@torch.no_grad()
def test_tokens_and_pictures_equal_the_published_ones_at_the_published_size(
    size: str, tag: str, num_tokens: int, fill_procedurally: Callable[[nn.Module], None]
) -> None:
    expected = load_file(DATA / "official_sizes_expected.safetensors")
    spec = LlamaGenTokenizerSpec.model_validate({"size": size, "checkpoint": ""})
    with torch.device("meta"):
        tokenizer = VQTokenizer(spec, image_size=64)
    fill_procedurally(tokenizer)
    assert tokenizer.num_tokens == num_tokens
    tokens = tokenizer.encode(expected[f"{tag}.images"])
    assert tokens.equal(expected[f"{tag}.tokens"])
    assert_close(tokenizer.decode(tokens), expected[f"{tag}.reconstruction"], rtol=1e-3, atol=1e-3)


def test_the_nearest_code_is_the_nearest_direction_whatever_the_lengths() -> None:
    tokenizer = small()
    torch.manual_seed(1)
    z_BDhw = 5 * torch.randn(3, 4, 4, 4)
    rows_VD = F.normalize(tokenizer.quantize.embedding.weight, dim=-1)
    distances = torch.cdist(F.normalize(z_BDhw, dim=1).flatten(2).mT, rows_VD.expand(3, -1, -1))
    assert tokenizer.nearest_codes(z_BDhw).equal(distances.argmin(-1))


def test_the_search_of_codes_gives_the_same_ids_in_small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = small()
    z_BDhw = torch.randn(2, 4, 4, 4)
    at_once = tokenizer.nearest_codes(z_BDhw)
    monkeypatch.setattr(vq_tokenizer, "_MAX_SIMILARITIES", 150)  # three rows at a time
    assert tokenizer.nearest_codes(z_BDhw).equal(at_once)


def test_codes_keep_float32_precision_under_autocast() -> None:
    tokenizer = small()
    z_BDhw = torch.randn(8, 4, 16, 16)
    precise = tokenizer.nearest_codes(z_BDhw)
    with torch.autocast("cpu", torch.bfloat16):
        assert tokenizer.nearest_codes(z_BDhw).equal(precise)


def test_codes_are_unit_rows_and_find_themselves() -> None:
    tokenizer = small()
    tokens_BT = torch.arange(48).reshape(3, 16)
    codes_BTD = tokenizer.codes(tokens_BT)
    assert_close(codes_BTD.norm(dim=-1), torch.ones(3, 16))
    assert tokenizer.nearest_codes(7 * codes_BTD.mT.unflatten(2, (4, 4))).equal(tokens_BT)


def test_tokens_are_in_raster_order() -> None:
    tokenizer = small()
    tokens_BT = torch.arange(16)[None]
    codes_BDhw = tokenizer.codes(tokens_BT.reshape(1, 4, 4)).permute(0, 3, 1, 2)
    assert tokenizer.decode(tokens_BT).equal(tokenizer.decode_codes(codes_BDhw))


def test_encode_is_latents_then_nearest_codes() -> None:
    tokenizer = small()
    pixels_BCHW = torch.rand(2, 3, 8, 8) * 2 - 1
    z_BDhw = tokenizer.encode_latents(pixels_BCHW)
    assert z_BDhw.shape == (2, 4, 4, 4)
    assert tokenizer.encode(pixels_BCHW).equal(tokenizer.nearest_codes(z_BDhw))


def test_gradients_reach_the_codes_and_the_pixels() -> None:
    tokenizer = small()
    codes_BDhw = torch.randn(1, 4, 4, 4, requires_grad=True)
    pixels_BCHW = torch.rand(1, 3, 8, 8, requires_grad=True)
    (tokenizer.decode_codes(codes_BDhw).sum() + tokenizer.encode_latents(pixels_BCHW).sum()).backward()
    assert codes_BDhw.grad is not None
    assert codes_BDhw.grad.abs().sum() > 0
    assert pixels_BCHW.grad is not None
    assert pixels_BCHW.grad.abs().sum() > 0


def test_any_square_number_of_tokens_decodes() -> None:
    assert small().decode(torch.zeros(2, 9, dtype=torch.int64)).shape == (2, 3, 6, 6)


def test_a_size_that_is_no_whole_number_of_tokens_is_refused() -> None:
    with pytest.raises(RecipeError, match="image size 9 is not a multiple of 2"):
        small(image_size=9)


def test_a_width_without_32_groups_is_refused() -> None:
    spec = LlamaGenTokenizerSpec(size=TokenizerSize(channels=40), checkpoint="")
    with pytest.raises(RecipeError, match=r"channels 40 .* must be a multiple of 32"):
        VQTokenizer(spec, image_size=64)
