"""Every family of the table against the protocols, at tiny sizes. A new family adds a spec here."""

from math import isqrt

import pytest
import torch
from torch import Tensor, nn

from common.config.lora import LoraSection
from common.models import families
from common.models.families import PolicyModule, PolicySpec, TokenizerSpec, build_policy, build_tokenizer
from common.models.janus.spec import JanusPolicySpec, JanusSize
from common.models.llamagen.spec import LlamaGenPolicySpec, LlamaGenTokenizerSpec, TokenizerSize, TransformerSize
from common.models.lora import add_adapters, draw_adapters, layers_to_adapt, trained_tensors
from common.protocols import Condition, ImageTokenizer, Policy

B, T, V = 3, 9, 20  # images, tokens of a 3 x 3 grid, codebook entries
TRANSFORMER = TransformerSize(num_layers=2, num_heads=2, dim=16, ffn_multiple=8)

POLICY_SPECS: dict[str, PolicySpec] = {
    "llamagen, class": LlamaGenPolicySpec(size=TRANSFORMER, num_classes=5, checkpoint=""),
    "llamagen, text": LlamaGenPolicySpec(
        size=TRANSFORMER, conditioning="text", caption_dim=6, caption_length=4, checkpoint=""
    ),
    "janus": JanusPolicySpec(
        family="janus",
        size=JanusSize(num_layers=2, num_heads=2, dim=16, ffn_dim=24, vocabulary_size=9, code_dim=4),
        prompt_length=4,
        checkpoint="",
    ),
}
TOKENIZER_SPECS: dict[str, TokenizerSpec] = {
    "llamagen_vq": LlamaGenTokenizerSpec(
        size=TokenizerSize(
            channels=32, channel_multipliers=(1, 1, 1), num_res_blocks=1, z_channels=8, codebook_size=V
        ),
        checkpoint="",
    ),
}

each_policy = pytest.mark.parametrize("name", sorted(POLICY_SPECS))
each_tokenizer = pytest.mark.parametrize("name", sorted(TOKENIZER_SPECS))


def random_policy(name: str) -> PolicyModule:
    torch.manual_seed(0)
    policy = build_policy(POLICY_SPECS[name], codebook_size=V, grid_size=3)
    for parameter in policy.parameters():  # a zero-initialised output would make every test here pass
        torch.nn.init.normal_(parameter, std=0.3)
    return policy.eval()


def condition_for(spec: PolicySpec) -> Condition:
    if spec.conditioning == "class":
        return {"label": torch.tensor([0, 4, 2])}
    mask_BL = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1], [0, 0, 0, 1]])
    if spec.family == "janus":
        mask_BL = torch.tensor([[0, 1, 1, 1], [1, 1, 1, 1], [0, 0, 1, 1]])
        ids_BL = torch.tensor([[8, 1, 5, 2], [1, 3, 4, 2], [8, 8, 1, 2]])
        null_BL = torch.tensor([[8, 1, 8, 2], [1, 8, 8, 2], [8, 8, 1, 2]])
        return {"prompt_ids": ids_BL, "null_prompt_ids": null_BL, "prompt_mask": mask_BL}
    return {"caption_features": torch.randn(B, 4, 6) * mask_BL[..., None], "caption_mask": mask_BL}


def policy_inputs(name: str) -> tuple[PolicyModule, Condition, Tensor]:
    policy = random_policy(name)
    return policy, condition_for(POLICY_SPECS[name]), torch.randint(V, (B, T))


@each_policy
def test_adapters_at_zero_change_no_logit_and_are_all_that_trains(name: str) -> None:
    policy, condition, tokens_BT = policy_inputs(name)
    before_BTV = policy(condition, tokens_BT[:, :-1])
    linear = tuple(name for name, module in policy.named_modules() if isinstance(module, nn.Linear))
    section = LoraSection(rank=2, targets=linear)
    add_adapters(policy, section, layers_to_adapt(policy, section))
    draw_adapters(policy, seed=0)
    after_BTV = policy(condition, tokens_BT[:, :-1])
    assert after_BTV.equal(before_BTV)
    after_BTV.square().sum().backward()
    with_gradients = {name for name, each in policy.named_parameters() if each.grad is not None}
    assert with_gradients == trained_tensors(policy).keys()
    assert len(with_gradients) == 2 * len(linear)  # whoever takes a product by other means must ask the adapter


def test_every_family_of_the_tables_is_tested_here() -> None:
    assert {spec.family for spec in POLICY_SPECS.values()} == set(families.POLICIES)
    assert {spec.family for spec in TOKENIZER_SPECS.values()} == set(families.TOKENIZERS)


@each_policy
def test_a_policy_gives_float32_logits_of_every_token(name: str) -> None:
    policy, condition, tokens_BT = policy_inputs(name)
    as_protocol: Policy = policy
    assert (as_protocol.num_tokens, as_protocol.codebook_size) == (T, V)
    for mode in (True, False):
        logits_BTV = policy.train(mode)(condition, tokens_BT[:, :-1])
        assert logits_BTV.shape == (B, T, V)
        assert logits_BTV.dtype == torch.float32


@each_policy
def test_a_policy_gives_the_same_logits_twice(name: str) -> None:
    policy, condition, tokens_BT = policy_inputs(name)
    assert policy(condition, tokens_BT[:, :-1]).equal(policy(condition, tokens_BT[:, :-1]))


@each_policy
def test_logits_depend_on_every_earlier_token_and_on_no_other(name: str) -> None:
    policy, condition, tokens_BT = policy_inputs(name)
    before = policy(condition, tokens_BT[:, :-1])
    changed_BT = tokens_BT.clone()
    changed_BT[:, 4] = (changed_BT[:, 4] + 1) % V
    difference_T = (policy(condition, changed_BT[:, :-1]) - before).abs().amax((0, 2))
    assert difference_T[:5].tolist() == [0, 0, 0, 0, 0]
    assert (difference_T[5:] > 1e-3).all()


@each_policy
def test_cached_decoding_gives_the_teacher_forced_logits(name: str) -> None:
    policy, condition, tokens_BT = policy_inputs(name)
    decoder = policy.start_decoding(condition)
    steps = [decoder.next_logits(None)]
    steps += [decoder.next_logits(tokens_BT[:, position]) for position in range(T - 1)]
    assert all(step.shape == (B, V) and step.dtype == torch.float32 for step in steps)
    torch.testing.assert_close(
        torch.stack(steps, dim=1), policy(condition, tokens_BT[:, :-1]), rtol=1e-4, atol=1e-5
    )


@each_policy
def test_images_of_a_batch_do_not_see_each_other(name: str) -> None:
    policy, condition, tokens_BT = policy_inputs(name)
    together = policy(condition, tokens_BT[:, :-1])
    for image in range(B):
        own = {column: values[image : image + 1] for column, values in condition.items()}
        alone = policy(own, tokens_BT[image : image + 1, :-1])
        torch.testing.assert_close(alone[0], together[image], rtol=1e-4, atol=1e-5)


@each_policy
def test_the_null_condition_has_the_columns_of_the_condition_and_forgets_what_it_said(name: str) -> None:
    policy, condition, tokens_BT = policy_inputs(name)
    null = policy.null_condition(condition)
    assert {column: (values.shape, values.dtype) for column, values in null.items()} == {
        column: (values.shape, values.dtype) for column, values in condition.items()
    }
    logits = policy(null, tokens_BT[:, :-1])
    assert (logits - policy(condition, tokens_BT[:, :-1])).abs().max() > 1e-3
    again = policy.null_condition(null)
    assert policy(again, tokens_BT[:, :-1]).equal(logits)


@each_policy
def test_gradients_reach_every_parameter(name: str) -> None:
    policy, condition, tokens_BT = policy_inputs(name)
    policy(condition, tokens_BT[:, :-1]).square().mean().backward()
    for parameter_name, parameter in policy.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.abs().sum() > 0, parameter_name


@each_tokenizer
def test_a_tokenizer_encodes_pixels_to_ids_and_decodes_ids_to_pixels(name: str) -> None:
    torch.manual_seed(0)
    tokenizer = build_tokenizer(TOKENIZER_SPECS[name], image_size=16).eval()
    as_protocol: ImageTokenizer = tokenizer
    assert (as_protocol.num_tokens, as_protocol.codebook_size) == (16, V)
    pixels_BCHW = torch.rand(B, 3, 16, 16) * 2 - 1
    tokens_BT = tokenizer.encode(pixels_BCHW)
    assert tokens_BT.shape == (B, 16)
    assert tokens_BT.dtype == torch.int64
    assert 0 <= int(tokens_BT.min()) <= int(tokens_BT.max()) < V
    pixels_BCHW = tokenizer.decode(tokens_BT)
    assert pixels_BCHW.shape == (B, 3, 16, 16)
    assert pixels_BCHW.dtype == torch.float32


@each_tokenizer
def test_a_tokenizer_decodes_the_codes_of_ids_as_the_ids_and_says_how_long_they_are(name: str) -> None:
    torch.manual_seed(0)
    spec = TOKENIZER_SPECS[name]
    tokenizer = build_tokenizer(spec, image_size=16).eval()
    tokens_BT = torch.randint(tokenizer.codebook_size, (2, tokenizer.num_tokens))
    codes_BTD = tokenizer.codes(tokens_BT).detach().requires_grad_()
    assert codes_BTD.shape == (2, tokenizer.num_tokens, spec.code_size)
    side = isqrt(tokenizer.num_tokens)
    decoded_BCHW = tokenizer.decode_codes(codes_BTD.mT.unflatten(2, (side, side)))
    assert decoded_BCHW.equal(tokenizer.decode(tokens_BT))
    (gradient_BTD,) = torch.autograd.grad(decoded_BCHW.sum(), codes_BTD)
    assert gradient_BTD.abs().amax(dim=2).min() > 0


@each_tokenizer
def test_a_tokenizer_scores_with_a_decoder_in_bfloat16_and_keeps_its_own(name: str) -> None:
    torch.manual_seed(0)
    tokenizer = build_tokenizer(TOKENIZER_SPECS[name], image_size=16).eval().requires_grad_(False)
    tokens_BT = torch.randint(tokenizer.codebook_size, (2, tokenizer.num_tokens))
    before_BCHW, twin = tokenizer.decode(tokens_BT), tokenizer.for_scoring(torch.bfloat16)
    pictures_BCHW = twin.decode(tokens_BT)
    assert pictures_BCHW.dtype == torch.bfloat16
    assert 0 < (pictures_BCHW - before_BCHW).abs().max() < 0.1 * before_BCHW.abs().max()
    assert tokenizer.decode(tokens_BT).equal(before_BCHW)
    assert twin.codes(tokens_BT).equal(tokenizer.codes(tokens_BT))


@each_tokenizer
def test_a_tokenizer_is_deterministic(name: str) -> None:
    torch.manual_seed(0)
    tokenizer = build_tokenizer(TOKENIZER_SPECS[name], image_size=16).eval()
    pixels_BCHW = torch.rand(B, 3, 16, 16) * 2 - 1
    tokens_BT = tokenizer.encode(pixels_BCHW)
    assert tokenizer.encode(pixels_BCHW).equal(tokens_BT)
    assert tokenizer.decode(tokens_BT).equal(tokenizer.decode(tokens_BT))
