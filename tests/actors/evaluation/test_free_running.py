"""Free-running sampling. Letters: N pictures, T image tokens, V codebook entries."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from actors.evaluation.free_running import sample_tokens
from common.config.recipe import Recipe
from common.config.sampling import SamplingSection
from common.models.families import PolicyModule, build_policy
from common.protocols import CachedDecoder, Condition

V = 20


@pytest.fixture
def policy(tiny_recipe: Recipe) -> PolicyModule:
    torch.manual_seed(0)
    policy = build_policy(tiny_recipe.policy, codebook_size=V, grid_size=3)
    for parameter in policy.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return policy.eval()


def labels(*values: int) -> Condition:
    return {"label": torch.tensor(values)}


def sampled(
    policy: PolicyModule, sample_indices: Sequence[int], sampling: SamplingSection | None = None, seed: int = 0
) -> Tensor:
    """Tokens of pictures whose class is their sample index modulo 10."""
    condition = labels(*(index % 10 for index in sample_indices))
    return sample_tokens(policy, condition, sampling or SamplingSection(), seed, sample_indices)


def test_a_picture_has_a_token_for_each_position(policy: PolicyModule) -> None:
    tokens_NT = sampled(policy, range(4))
    assert tokens_NT.shape == (4, 9)
    assert tokens_NT.dtype == torch.int64
    assert 0 <= int(tokens_NT.min()) <= int(tokens_NT.max()) < V


@pytest.mark.parametrize("guidance_scale", [1.0, 2.5])
def test_a_picture_depends_on_its_seed_and_index_and_not_on_its_batch(
    policy: PolicyModule, guidance_scale: float
) -> None:
    sampling = SamplingSection(guidance_scale=guidance_scale, top_k=15, top_p=0.95)
    together_NT = sampled(policy, range(6), sampling)
    for index in range(6):
        assert sampled(policy, [index], sampling).equal(together_NT[index : index + 1])
    shuffled = [4, 0, 5, 2]
    assert sampled(policy, shuffled, sampling).equal(together_NT[shuffled])


def test_other_seeds_and_other_indices_draw_other_pictures(policy: PolicyModule) -> None:
    one, other_index = sampled(policy, [3]), sampled(policy, [13])  # of the same class
    assert not one.equal(other_index)
    assert not one.equal(sampled(policy, [3], seed=1))


def test_tokens_are_drawn_from_the_teacher_forced_distribution(policy: PolicyModule) -> None:
    """The first two tokens of many pictures of one class come as often as a full forward says."""
    N = 4000
    tokens_NT = sample_tokens(policy, labels(*[7] * N), SamplingSection(), 0, range(N))
    with torch.no_grad():
        # the second token's distribution, for each first token
        logits_VTV = policy(labels(*[7] * V), torch.arange(V)[:, None].expand(V, 8))
    first_V = logits_VTV[0, 0].softmax(-1)
    second_V = first_V @ logits_VTV[:, 1].softmax(-1)
    for position, expected_V in enumerate((first_V, second_V)):
        shares_V = tokens_NT[:, position].bincount(minlength=V) / N
        torch.testing.assert_close(shares_V, expected_V, rtol=0, atol=0.03)  # four standard deviations


@torch.no_grad()
def test_temperature_zero_takes_the_most_likely_token_of_a_full_forward(policy: PolicyModule) -> None:
    tokens_NT = sampled(policy, range(4), SamplingSection(temperature=0))
    greedy_NT = torch.zeros(4, 9, dtype=torch.int64)
    for position in range(9):
        logits_NTV = policy(labels(0, 1, 2, 3), greedy_NT[:, :-1])
        greedy_NT[:, position] = logits_NTV[:, position].argmax(-1)
    assert tokens_NT.equal(greedy_NT)
    assert sampled(policy, range(4), SamplingSection(temperature=0), seed=9).equal(greedy_NT)


@torch.no_grad()
def test_guidance_moves_the_logits_away_from_the_unconditional_ones(policy: PolicyModule) -> None:
    tokens_NT = sampled(policy, range(4), SamplingSection(temperature=0, guidance_scale=3))
    condition = labels(0, 1, 2, 3)
    greedy_NT = torch.zeros(4, 9, dtype=torch.int64)
    for position in range(9):
        with_NV = policy(condition, greedy_NT[:, :-1])[:, position]
        without_NV = policy(policy.null_condition(condition), greedy_NT[:, :-1])[:, position]
        greedy_NT[:, position] = (without_NV + 3 * (with_NV - without_NV)).argmax(-1)
    assert tokens_NT.equal(greedy_NT)
    assert not tokens_NT.equal(sampled(policy, range(4), SamplingSection(temperature=0)))


def test_guidance_of_scale_zero_forgets_the_condition(policy: PolicyModule) -> None:
    sampling = SamplingSection(temperature=0, guidance_scale=0)
    tokens_NT = sampled(policy, range(4), sampling)
    assert (tokens_NT == tokens_NT[:1]).all()


def test_an_interval_guides_the_tokens_from_its_start_on(policy: PolicyModule) -> None:
    """The tokens before are those of the plain conditional, and the first guided one is the guided choice."""
    interval = SamplingSection(temperature=0, guidance_scale=3, guidance_schedule="interval", guidance_start=4)
    tokens_NT = sampled(policy, range(10), interval)
    plain_NT = sampled(policy, range(10), SamplingSection(temperature=0))
    assert tokens_NT[:, :4].equal(plain_NT[:, :4])
    condition = labels(*range(10))
    with torch.no_grad():
        with_NV = policy(condition, plain_NT[:, :-1])[:, 4]
        without_NV = policy(policy.null_condition(condition), plain_NT[:, :-1])[:, 4]
    assert tokens_NT[:, 4].equal((without_NV + 3 * (with_NV - without_NV)).argmax(-1))
    assert not tokens_NT[:, 4].equal(plain_NT[:, 4])


def test_under_autocast_the_policy_computes_in_bfloat16_and_gives_float32_logits(policy: PolicyModule) -> None:
    seen = set()
    policy.layers[0].feed_forward.w1.register_forward_hook(lambda *call: seen.add(("hidden", call[2].dtype)))
    logits = policy.logits
    policy.logits = lambda hidden: _noted(seen, logits(hidden))  # type: ignore[method-assign]
    tokens_NT = sampled(policy, range(6), SamplingSection(autocast="bfloat16", guidance_scale=2))
    assert seen == {("hidden", torch.bfloat16), ("logits", torch.float32, "not rounded to bfloat16")}
    together_NT = sampled(policy, range(6), SamplingSection(guidance_scale=2))
    assert tokens_NT.shape == together_NT.shape
    assert (tokens_NT == together_NT).float().mean() > 0.5  # bfloat16 changes some draws, then what follows


def _noted(seen: set, logits: Tensor) -> Tensor:
    is_rounded = logits.equal(logits.bfloat16().float())
    seen.add(("logits", logits.dtype, "rounded" if is_rounded else "not rounded to bfloat16"))
    return logits


class CountsRows:
    """A policy that notes how many rows it decodes; any class but the null one prefers token 1."""

    num_tokens, codebook_size = 3, 4

    def __call__(self, condition: Condition, context_BT: Tensor) -> Tensor:
        raise AssertionError("free running needs no teacher-forced forward")

    def null_condition(self, condition: Condition) -> Condition:
        return {"label": torch.full_like(condition["label"], 10)}

    def start_decoding(self, condition: Condition) -> CachedDecoder:
        self.label_N = condition["label"]
        return self

    def next_logits(self, tokens_B: Tensor | None) -> Tensor:
        self.last = tokens_B
        favourite_N = torch.where(self.label_N == 10, 2, 1)
        return 9.0 * torch.nn.functional.one_hot(favourite_N, 4)


def test_guidance_of_scale_one_is_no_guidance_and_costs_no_second_half() -> None:
    policy = CountsRows()
    sample_tokens(policy, labels(3, 4), SamplingSection(), 0, (0, 1))
    assert policy.label_N.tolist() == [3, 4]
    sample_tokens(policy, labels(3, 4), SamplingSection(guidance_scale=2), 0, (0, 1))
    assert policy.label_N.tolist() == [3, 4, 10, 10]
    assert policy.last is not None
    assert policy.last[:2].equal(policy.last[2:])  # both halves decode the tokens that were drawn


def test_a_guidance_scale_near_one_gives_the_pictures_of_one(policy: PolicyModule) -> None:
    almost = SamplingSection(guidance_scale=1 + 1e-9)
    assert sampled(policy, range(5), almost).equal(sampled(policy, range(5)))


def test_top_k_of_one_is_greedy_whatever_the_temperature(policy: PolicyModule) -> None:
    greedy = sampled(policy, range(3), SamplingSection(temperature=0))
    assert sampled(policy, range(3), SamplingSection(temperature=2, top_k=1)).equal(greedy)
    assert sampled(policy, range(3), SamplingSection(top_p=1e-6)).equal(greedy)


def test_a_lower_temperature_draws_likelier_tokens(policy: PolicyModule) -> None:
    """Over many pictures, the mean log-probability of the first token rises as the temperature falls."""
    with torch.no_grad():
        logprobs_V = policy(labels(7), torch.zeros(1, 8, dtype=torch.int64))[0, 0].log_softmax(-1)
    means = []
    for temperature in (2.0, 1.0, 0.5):
        sampling = SamplingSection(temperature=temperature)
        tokens_NT = sample_tokens(policy, labels(*[7] * 300), sampling, 0, range(300))
        means.append(logprobs_V[tokens_NT[:, 0]].mean().item())
    assert means == sorted(means)
