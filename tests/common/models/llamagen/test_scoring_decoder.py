"""The decoder that scores samples: in another dtype, compiled for one size of batch, beside the one it is from."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F
from torch.testing import assert_close

from common.models.llamagen.spec import LlamaGenTokenizerSpec, TokenizerSize
from common.models.llamagen.vq_tokenizer import VQTokenizer
from tests.common.models.llamagen.counting_backend import Counter

SMALL = TokenizerSize(
    channels=32, channel_multipliers=(1, 2), num_res_blocks=1, z_channels=16, codebook_size=50, codebook_dim=4
)
FLOAT32, BFLOAT16 = torch.float32, torch.bfloat16


@pytest.fixture(autouse=True)
def nothing_compiled() -> Iterator[None]:
    """Compiled code is kept for the process; each test counts its own."""
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.fixture
def tokenizer() -> VQTokenizer:
    torch.manual_seed(0)
    spec = LlamaGenTokenizerSpec(size=SMALL, checkpoint="")
    return VQTokenizer(spec, image_size=8).eval().requires_grad_(False)


def codes(num_pictures: int) -> Tensor:
    return F.normalize(torch.randn(num_pictures, 4, 4, 4, generator=torch.Generator().manual_seed(1)), dim=1)


def gradient(tokenizer: VQTokenizer, codes_NDhw: Tensor) -> Tensor:
    """Of a scalar made of the pictures, at the codes."""
    leaf_NDhw = codes_NDhw.clone().requires_grad_()
    (gradient_NDhw,) = torch.autograd.grad(tokenizer.decode_codes(leaf_NDhw).float().square().sum(), leaf_NDhw)
    return gradient_NDhw


def test_all_weights_of_a_bfloat16_decoder_are_bfloat16_and_those_it_is_from_stay(tokenizer: VQTokenizer) -> None:
    twin = tokenizer.for_scoring(BFLOAT16)
    for part, kept in ((twin.decoder, tokenizer.decoder), (twin.post_quant_conv, tokenizer.post_quant_conv)):
        assert {weight.dtype for weight in part.parameters()} == {BFLOAT16}
        assert {weight.dtype for weight in kept.parameters()} == {FLOAT32}
    pictures_BCHW, expected_BCHW = twin.decode_codes(codes(2)), tokenizer.decode_codes(codes(2))
    assert (pictures_BCHW.dtype, expected_BCHW.dtype) == (BFLOAT16, FLOAT32)
    assert_close(pictures_BCHW.float(), expected_BCHW, rtol=0, atol=0.05)
    one, other = gradient(twin, codes(2)).flatten(), gradient(tokenizer, codes(2)).flatten()
    assert F.cosine_similarity(one, other, dim=0) > 0.98


def test_its_encoder_and_codebook_are_those_it_is_from_in_float32(tokenizer: VQTokenizer) -> None:
    twin = tokenizer.for_scoring(BFLOAT16)
    assert (twin.encoder, twin.quant_conv, twin.quantize) == (
        tokenizer.encoder,
        tokenizer.quant_conv,
        tokenizer.quantize,
    )
    tokens_BT = torch.arange(16)[None]
    assert twin.codes(tokens_BT).equal(tokenizer.codes(tokens_BT))


def test_a_decoder_of_the_same_dtype_is_in_memory_once(tokenizer: VQTokenizer) -> None:
    half = tokenizer.for_scoring(BFLOAT16)
    for one, other in ((tokenizer, tokenizer.for_scoring(FLOAT32, 3)), (half, half.for_scoring(BFLOAT16, 3))):
        assert all(own is shared for own, shared in zip(one.parameters(), other.parameters(), strict=True))


def test_it_can_be_made_of_weights_without_numbers() -> None:
    """As `plan` counts it."""
    with FakeTensorMode():
        tokenizer = VQTokenizer(LlamaGenTokenizerSpec(size=SMALL, checkpoint=""), image_size=8)
        pictures_BCHW = tokenizer.for_scoring(BFLOAT16).decode(torch.zeros(2, 16, dtype=torch.long))
    assert (pictures_BCHW.shape, pictures_BCHW.dtype) == ((2, 3, 8, 8), BFLOAT16)


def test_one_size_of_batch_is_compiled_and_others_are_decoded_as_they_come(tokenizer: VQTokenizer) -> None:
    counter = Counter()
    twin = tokenizer.for_scoring(FLOAT32, 3, counter)
    for num_pictures, expected in ((2, 0), (3, 1), (1, 1), (3, 1)):
        assert twin.decode_codes(codes(num_pictures)).equal(tokenizer.decode_codes(codes(num_pictures)))
        assert counter.count == expected
    tokenizer.decode_codes(codes(3))
    assert counter.count == 1


@pytest.mark.parametrize("dtype", [FLOAT32, BFLOAT16])
def test_a_compiled_decoder_gives_the_pictures_and_gradients_of_one_that_is_not(
    dtype: torch.dtype, tokenizer: VQTokenizer
) -> None:
    """By the graphs of both ways that Inductor would be given; docs/log.md has what it makes of them."""
    plain, compiled = tokenizer.for_scoring(dtype), tokenizer.for_scoring(dtype, 3, "aot_eager")
    tolerance = {FLOAT32: 1e-5, BFLOAT16: 0.05}[dtype]
    with torch.no_grad():
        assert_close(compiled.decode_codes(codes(3)), plain.decode_codes(codes(3)), rtol=0, atol=tolerance)
    one, other = gradient(compiled, codes(3)), gradient(plain, codes(3))
    assert_close(one, other, rtol=0, atol=tolerance * float(other.abs().max()))
