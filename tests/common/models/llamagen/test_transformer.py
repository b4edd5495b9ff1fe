"""The transformer against the published implementation: tests/data/llamagen, made in float32 on a CPU."""

import zlib
from collections.abc import Callable

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.testing import assert_close

from common.errors import RecipeError
from common.models.block_stack import padded_attention
from common.models.llamagen.spec import LlamaGenPolicySpec, TransformerSize
from common.models.llamagen.transformer import LlamaGenTransformer, rope_table
from common.models.weights_files import load_weights
from common.paths import CHECKOUT
from common.protocols import Condition

DATA = CHECKOUT / "tests" / "data" / "llamagen"
TINY = TransformerSize(num_layers=2, num_heads=4, dim=64, ffn_multiple=32)
CLASS_SPEC = LlamaGenPolicySpec(size=TINY, num_classes=10, checkpoint="llamagen_c2i_tiny.pt")
TEXT_SPEC = LlamaGenPolicySpec(size=TINY, conditioning="text", caption_dim=24, checkpoint="llamagen_t2i_tiny.pt")


def tiny(spec: LlamaGenPolicySpec, dropout: float = 0.0) -> LlamaGenTransformer:
    model = LlamaGenTransformer(spec, codebook_size=64, grid_size=4, dropout=dropout)
    load_weights(model, DATA / spec.checkpoint, what="policy")
    return model.eval()


def class_inputs() -> tuple[Condition, dict[str, Tensor]]:
    expected = load_file(DATA / "llamagen_c2i_tiny_expected.safetensors")
    return {"label": expected["labels"]}, expected


def text_inputs() -> tuple[Condition, dict[str, Tensor]]:
    expected = load_file(DATA / "llamagen_t2i_tiny_expected.safetensors")
    return {name: expected[name] for name in ("caption_features", "caption_mask")}, expected


def greedy_tokens(model: LlamaGenTransformer, condition: Condition, guidance: float) -> Tensor:
    """Argmax decoding with classifier-free guidance, conditional rows above unconditional ones."""
    null = model.null_condition(condition)
    both = {name: torch.cat([column, null[name]]) for name, column in condition.items()}
    decoder = model.start_decoding(both)
    drawn: list[Tensor] = []
    for _ in range(model.num_tokens):
        conditional, unconditional = decoder.next_logits(drawn[-1].repeat(2) if drawn else None).chunk(2)
        drawn.append((unconditional + guidance * (conditional - unconditional)).argmax(-1))
    return torch.stack(drawn, dim=1)


def test_class_conditional_logits_on_a_clean_context_equal_the_published_ones() -> None:
    condition, expected = class_inputs()
    logits = tiny(CLASS_SPEC)(condition, expected["gt_tokens"][:, :-1])
    assert_close(logits, expected["logits_clean"], rtol=1e-4, atol=1e-5)


def test_class_conditional_logits_on_a_noisy_context_equal_the_published_ones() -> None:
    condition, expected = class_inputs()
    logits = tiny(CLASS_SPEC)(condition, expected["noisy_context"])
    assert_close(logits, expected["logits_noisy"], rtol=1e-4, atol=1e-5)


def test_logits_of_the_null_class_equal_the_published_ones() -> None:
    condition, expected = class_inputs()
    model = tiny(CLASS_SPEC)
    null = model.null_condition(condition)
    assert null["label"].tolist() == [10, 10, 10]
    logits = model(null, expected["noisy_context"])
    assert_close(logits, expected["logits_null_label"], rtol=1e-4, atol=1e-5)


def test_text_conditional_logits_equal_the_published_ones() -> None:
    condition, expected = text_inputs()
    logits = tiny(TEXT_SPEC)(condition, expected["noisy_context"])
    assert_close(logits, expected["logits_noisy"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("guidance", [1.0, 2.5])
def test_greedy_class_conditional_decoding_draws_the_published_tokens(guidance: float) -> None:
    condition, expected = class_inputs()
    drawn = greedy_tokens(tiny(CLASS_SPEC), condition, guidance)
    assert drawn.tolist() == expected[f"greedy_tokens_cfg{guidance}"].tolist()


@pytest.mark.parametrize("guidance", [1.0, 2.5])
def test_greedy_text_conditional_decoding_draws_the_published_tokens(guidance: float) -> None:
    condition, expected = text_inputs()
    drawn = greedy_tokens(tiny(TEXT_SPEC), condition, guidance)
    assert drawn.tolist() == expected[f"greedy_tokens_cfg{guidance}"].tolist()


@pytest.fixture
def published_b(fill_procedurally: Callable[[nn.Module], None]) -> Callable[[str], LlamaGenTransformer]:
    """Makes GPT-B, class- or text-conditional."""

    def make(conditioning: str) -> LlamaGenTransformer:
        spec = LlamaGenPolicySpec.model_validate({"size": "B", "conditioning": conditioning, "checkpoint": ""})
        with torch.device("meta"):
            model = LlamaGenTransformer(spec, codebook_size=16384, grid_size=16)
        fill_procedurally(model)
        return model

    return make


def assert_published_logits(logits_BTV: Tensor, expected: dict[str, Tensor], tag: str) -> None:
    sparse = expected[f"{tag}.logits_every_16th_position_every_64th_code"]
    assert_close(logits_BTV[:, ::16, ::64], sparse, rtol=1e-3, atol=1e-3)
    assert_close(logits_BTV.logsumexp(-1), expected[f"{tag}.logsumexp"], rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_gpt_b_class_conditional_at_its_published_size(
    published_b: Callable[[str], LlamaGenTransformer],
) -> None:
    expected = load_file(DATA / "official_sizes_expected.safetensors")
    context = expected["c2i_B.target_tokens"][:, :-1]
    logits = published_b("class")({"label": expected["c2i_B.labels"]}, context)
    assert_published_logits(logits, expected, "c2i_B")


@torch.no_grad()
def test_gpt_b_text_conditional_at_its_published_size(
    published_b: Callable[[str], LlamaGenTransformer],
) -> None:
    expected = load_file(DATA / "official_sizes_expected.safetensors")
    random = np.random.default_rng([11, zlib.crc32(b"t2i_B")])
    targets = torch.from_numpy(random.integers(0, 16384, (2, 256)))
    assert targets.equal(expected["t2i_B.target_tokens"])
    mask = expected["t2i_B.caption_mask"]
    features = torch.from_numpy(random.standard_normal((2, 120, 2048)).astype(np.float32)) * mask[..., None]
    condition = {"caption_features": features, "caption_mask": mask}
    assert_published_logits(published_b("text")(condition, targets[:, :-1]), expected, "t2i_B")


def test_condition_positions_are_erased_and_the_first_grid_position_is_the_identity() -> None:
    cos, sin = rope_table(num_condition=2, grid_size=2, head_dim=8, device=torch.device("cpu"))
    assert cos[:2].tolist() == [[0, 0, 0, 0]] * 2
    assert sin[:3].tolist() == [[0, 0, 0, 0]] * 3
    assert cos[2].tolist() == [1, 1, 1, 1]
    # Raster order: (0, 1) turns the column's pairs by 1 and 10000^-1/2, (1, 0) the row's.
    assert_close(sin[3], torch.tensor([0, 0, 0.84147, 0.01]), rtol=1e-4, atol=1e-6)
    assert_close(sin[4], torch.tensor([0.84147, 0.01, 0, 0]), rtol=1e-4, atol=1e-6)


def test_caption_padding_is_invisible_but_to_itself() -> None:
    mask = padded_attention(torch.tensor([[0, 1]]), length=4)
    assert mask.int().tolist() == [[[[1, 0, 0, 0], [0, 1, 0, 0], [0, 1, 1, 0], [0, 1, 1, 1]]]]


def test_the_null_caption_keeps_the_mask_and_takes_the_stored_features() -> None:
    condition, _ = text_inputs()
    model = tiny(TEXT_SPEC)
    null = model.null_condition(condition)
    assert null["caption_mask"].equal(condition["caption_mask"])
    for features in null["caption_features"]:
        assert features.equal(model.cls_embedding.uncond_embedding)


def test_dropout_acts_in_train_mode_only() -> None:
    condition, expected = class_inputs()
    model = tiny(CLASS_SPEC, dropout=0.5)
    context = expected["noisy_context"]
    assert_close(model(condition, context), expected["logits_noisy"], rtol=1e-4, atol=1e-5)
    model.train()
    assert (model(condition, context) - model(condition, context)).abs().max() > 0.1


def test_without_dropout_train_mode_gives_the_logits_of_eval_mode() -> None:
    condition, expected = class_inputs()
    model = tiny(CLASS_SPEC)
    evaluated = model(condition, expected["noisy_context"])
    assert model.train()(condition, expected["noisy_context"]).equal(evaluated)


def test_logits_are_float32_under_autocast_and_in_bfloat16() -> None:
    condition, expected = text_inputs()
    model = tiny(TEXT_SPEC)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = model(condition, expected["noisy_context"])
        first = model.start_decoding(condition).next_logits(None)
    lowered = model.bfloat16()(condition, expected["noisy_context"])
    assert mixed.dtype == first.dtype == lowered.dtype == torch.float32
    for logits in (mixed, lowered):
        error = (logits - expected["logits_noisy"]).norm() / expected["logits_noisy"].norm()
        assert error < 0.03
    assert_close(first, mixed[:, 0], rtol=0.05, atol=0.05)


def test_a_class_file_loads_at_another_resolution() -> None:
    model = LlamaGenTransformer(CLASS_SPEC, codebook_size=64, grid_size=6)
    load_weights(model, DATA / "llamagen_c2i_tiny.pt", what="policy")
    logits = model({"label": torch.tensor([3])}, torch.zeros(1, 35, dtype=torch.int64))
    assert logits.shape == (1, 36, 64)


def test_heads_that_do_not_divide_the_width_are_refused_with_the_multiple_needed() -> None:
    spec = LlamaGenPolicySpec(size=TransformerSize(num_layers=1, num_heads=3, dim=64), checkpoint="")
    with pytest.raises(RecipeError, match="make dim a multiple of 12"):
        LlamaGenTransformer(spec, codebook_size=64, grid_size=4)
