"""The transformer and the tokenizer against the published mathematics: tests/data/janus, float32 on a CPU."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from common.errors import RecipeError
from common.models.janus.spec import JanusPolicySpec, JanusSize
from common.models.janus.transformer import JanusTransformer
from tests.common.models.janus.golden import HF, ORIGINAL, POLICY, condition, expected, policy, tokenizer
from tests.common.models.llamagen.counting_backend import Counter

TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}
each_layout = pytest.mark.parametrize("path", [HF, ORIGINAL], ids=["transformers", "deepseek"])


def greedy_tokens(model: JanusTransformer, guidance: float) -> Tensor:
    null = model.null_condition(condition())
    both = {name: torch.cat([column, null[name]]) for name, column in condition().items()}
    decoder = model.start_decoding(both)
    drawn: list[Tensor] = []
    for _ in range(model.num_tokens):
        conditional, unconditional = decoder.next_logits(drawn[-1].repeat(2) if drawn else None).chunk(2)
        drawn.append((unconditional + guidance * (conditional - unconditional)).argmax(-1))
    return torch.stack(drawn, dim=1)


@each_layout
def test_logits_on_clean_and_noisy_contexts_and_of_the_null_prompt_equal_the_published_ones(path: Path) -> None:
    model, golden = policy(path), expected()
    clean = model(condition(), golden["gt_tokens"][:, :-1])
    assert_close(clean, golden["logits_clean"], **TOLERANCE)
    assert_close(model(condition(), golden["noisy_context"]), golden["logits_noisy"], **TOLERANCE)
    null = model.null_condition(condition())
    assert_close(model(null, golden["noisy_context"]), golden["logits_null"], **TOLERANCE)


@each_layout
@pytest.mark.parametrize("guidance", [1.0, 5.0])
def test_greedy_decoding_draws_the_published_tokens(path: Path, guidance: float) -> None:
    assert greedy_tokens(policy(path), guidance).equal(expected()[f"greedy_tokens_cfg{guidance}"])


def test_compiled_decoding_draws_the_published_tokens_and_compiles_its_steps_once() -> None:
    torch.compiler.reset()
    model, counter = policy(), Counter()
    model.compile_decoding(counter)
    assert greedy_tokens(model, 5.0).equal(expected()["greedy_tokens_cfg5.0"])
    assert counter.count == 1


@each_layout
@torch.no_grad()
def test_the_tokenizer_gives_the_published_features_ids_and_pictures(path: Path) -> None:
    model, golden = tokenizer(path), expected()
    features = model.encode_latents(golden["images"])
    assert_close(features, golden["vq_features"], **TOLERANCE)
    assert model.nearest_codes(features).equal(golden["vq_tokens"])
    assert model.encode(golden["images"]).equal(golden["vq_tokens"])
    assert_close(model.decode(golden["vq_tokens"]), golden["vq_reconstruction"], **TOLERANCE)
    assert_close(model.decode(golden["gt_tokens"]), golden["vq_decoded_gt"], **TOLERANCE)


def test_more_padding_changes_nothing_but_rounding() -> None:
    wide = policy(spec=POLICY.model_copy(update={"prompt_length": 40}))
    padded = {name: torch.cat([column[:, :1].expand(3, 12), column], 1) for name, column in condition().items()}
    padded["prompt_mask"] = torch.cat([torch.zeros(3, 12), condition()["prompt_mask"]], 1)
    golden = expected()
    assert_close(wide(padded, golden["noisy_context"]), golden["logits_noisy"], **TOLERANCE)


def test_each_prompt_alone_without_padding_gives_the_same_logits() -> None:
    golden = expected()
    for row, length in enumerate(golden["prompt_lengths"].tolist()):
        alone = policy(spec=POLICY.model_copy(update={"prompt_length": length}))
        own = {name: column[row : row + 1, -length:] for name, column in condition().items()}
        logits = alone(own, golden["noisy_context"][row : row + 1])
        assert_close(logits, golden["logits_noisy"][row : row + 1], **TOLERANCE)


def gradients(model: JanusTransformer) -> dict[str, Tensor]:
    model.zero_grad()
    model(condition(), expected()["noisy_context"]).log_softmax(-1)[..., 7].sum().backward()
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


def test_recomputed_and_compiled_blocks_give_the_same_gradients_under_the_same_keys() -> None:
    torch.compiler.reset()
    plain, model, counter = policy(), policy(), Counter()
    model.compile_blocks(counter)
    model.activation_checkpointing = True
    ours = gradients(model)
    theirs = gradients(plain)
    assert ours.keys() == theirs.keys() == dict(plain.named_parameters()).keys()
    for name, gradient in ours.items():
        assert gradient.equal(theirs[name]), name
    assert list(model.state_dict()) == list(plain.state_dict())
    assert counter.count == 1


def test_logits_are_float32_under_autocast_and_in_bfloat16() -> None:
    model, golden = policy(), expected()
    with torch.autocast("cpu", torch.bfloat16):
        mixed = model(condition(), golden["noisy_context"])
        decoder = model.start_decoding(condition())
        first = decoder.next_logits(None)
        second = decoder.next_logits(golden["noisy_context"][:, 0])
    assert_close(first, mixed[:, 0], rtol=0.05, atol=0.05)
    assert_close(second, mixed[:, 1], rtol=0.05, atol=0.05)
    lowered = model.bfloat16()(condition(), golden["noisy_context"])
    assert mixed.dtype == first.dtype == lowered.dtype == torch.float32
    for logits in (mixed, lowered):
        assert (logits - golden["logits_noisy"]).norm() / golden["logits_noisy"].norm() < 0.03


def test_pads_get_no_gradient_and_no_row_is_not_a_number() -> None:
    model = policy()
    short = {name: column[1:2] for name, column in condition().items()}
    embedded = model.embed_condition(short).detach().requires_grad_()
    model.embed_condition = lambda _: embedded  # type: ignore[method-assign]
    model(short, expected()["noisy_context"][1:2]).square().sum().backward()
    assert embedded.grad is not None
    assert embedded.grad[0, :18].abs().max() == 0
    assert embedded.grad[0, 18:].abs().amax(dim=1).min() > 0


def test_heads_that_do_not_divide_the_width_and_dropout_are_refused() -> None:
    size = JanusSize(num_layers=1, num_heads=3, dim=64, ffn_dim=8)
    spec = JanusPolicySpec(family="janus", size=size, checkpoint="")
    with pytest.raises(RecipeError, match="make dim a multiple of 6"):
        JanusTransformer(spec, codebook_size=64, grid_size=4)
    with pytest.raises(RecipeError, match=r"dropout is 0\.1, but Janus has none"):
        JanusTransformer(POLICY, codebook_size=64, grid_size=4, dropout=0.1)
