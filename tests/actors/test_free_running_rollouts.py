"""Free-running groups: what they are drawn from is what their log-probabilities are of.

Letters: B conditions, G samples per group, T image tokens, V codebook entries.
"""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from actors.free_running import free_running
from actors.rollouts.free_running import FreeRunning, for_each_sample, own_logprobs, sample_own
from actors.rollouts.rollout import Draws, RolloutSettings
from common.clock import StageClock
from common.config.load import with_changes
from common.config.recipe import Recipe
from common.guidance import GuidedPolicy, with_null
from common.models.families import PolicyModule, build_policy, condition_format
from common.protocols import Condition
from common.seeding import generator
from common.token_distribution import TokenDistribution

B, G, T, V = 3, 4, 16, 20
INDICES = (5, 6, 9)


@pytest.fixture
def settings(tiny_recipe: Recipe) -> RolloutSettings:
    return RolloutSettings.of(tiny_recipe)


def policy_of(recipe: Recipe) -> PolicyModule:
    torch.manual_seed(0)
    policy = build_policy(recipe.policy, codebook_size=V, grid_size=4)
    for parameter in policy.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return policy.eval()


def condition_of(recipe: Recipe) -> Condition:
    """Classes, or captions of different lengths."""
    if recipe.policy.conditioning == "class":
        return {"label": torch.tensor([3, 0, 7])}
    shape = condition_format(recipe.policy).columns["caption_features"][1]
    mask_BL = torch.tensor([[1, 1, 1], [0, 1, 1], [0, 0, 1]], dtype=torch.uint8)
    features_BLD = torch.randn((B, *shape), generator=torch.Generator().manual_seed(1)) * mask_BL[:, :, None]
    return {"caption_features": features_BLD, "caption_mask": mask_BL}


def drawn(recipe: Recipe, settings: RolloutSettings, indices: tuple[int, ...] = INDICES) -> Draws:
    chosen = [INDICES.index(index) for index in indices]
    condition = {name: column[chosen] for name, column in condition_of(recipe).items()}
    nothing = torch.zeros(len(indices), 3, 0, 0)
    with torch.no_grad():
        return FreeRunning(settings, tokenizer=None).draw(
            policy_of(recipe), nothing, condition, indices, StageClock()
        )


def recorded_by_the_cache(
    recipe: Recipe, samples_BGT: Tensor, scale: float, distribution: TokenDistribution
) -> Tensor:
    """Log-probabilities [B, G, T] of the samples at the time when a cached decoder is asked for each of them."""
    samples_NT, logprobs = samples_BGT.flatten(0, 1), []

    def pick(logits_NV: Tensor, place: int) -> Tensor:
        logprobs.append(distribution.log_probabilities(logits_NV, samples_NT[:, place, None])[:, 0])
        return samples_NT[:, place]

    condition = for_each_sample(condition_of(recipe), G)
    free_running(policy_of(recipe), condition, [scale] * T, pick)
    return torch.stack(logprobs, dim=1).unflatten(0, (B, G))


CAPTIONS = {
    "policy.conditioning": "text",
    "policy.caption_dim": 6,
    "policy.caption_length": 3,
    "source": {"kind": "emoji"},
}


@pytest.mark.parametrize("changes", [{}, CAPTIONS], ids=["classes", "captions"])
@pytest.mark.parametrize(
    ("scale", "group"),
    [
        (1.0, {}),
        (1.0, {"group.temperature": 0.7, "group.top_k": 7}),
        (3.0, {}),
        (3.0, {"group.top_k": 5, "group.top_p": 0.9}),
    ],
    ids=["plain", "cooler and truncated", "guided", "guided and truncated"],
)
def test_log_probabilities_are_those_of_the_distribution_that_the_cache_drew_from(
    tiny_recipe: Recipe, changes: dict, scale: float, group: dict
) -> None:
    recipe = with_changes(tiny_recipe, changes | group)
    guidance = {"guidance_scale": scale, "learned_guidance_scale": scale}
    settings = replace(RolloutSettings.of(recipe), **guidance)
    draws = drawn(recipe, settings)
    assert draws.samples_BGT.shape == draws.logprobs_BGT.shape == (B, G, T)
    at_the_time = recorded_by_the_cache(recipe, draws.samples_BGT, scale, settings.distribution)
    assert_close(draws.logprobs_BGT, at_the_time, rtol=0, atol=1e-4)
    assert draws.logprobs_BGT.std() > 0.1
    other = recorded_by_the_cache(recipe, draws.samples_BGT, scale + 0.5, settings.distribution)
    assert (draws.logprobs_BGT - other).abs().max() > 0.05


def test_samples_have_the_frequencies_of_the_guided_distribution(tiny_recipe: Recipe) -> None:
    """The first token of 4,000 samples of one class, against softmax(u + 2 (c - u)) / 0.8 of the top 6."""
    policy, label = policy_of(tiny_recipe), {"label": torch.tensor([3])}
    distribution = TokenDistribution(temperature=0.8, top_k=6)
    with torch.no_grad():
        samples_1GT = sample_own(policy, label, 4_000, distribution, 2.0, [generator(0, "test", 0)])
        context = torch.zeros(1, T - 1, dtype=torch.int64)
        logits_NV = [policy(each, context)[0, :1] for each in (label, policy.null_condition(label))]
    guided_NV = logits_NV[1] + 2 * (logits_NV[0] - logits_NV[1])
    top_6 = guided_NV[0].topk(6).indices
    expected_V = torch.zeros(V).index_put((top_6,), (guided_NV[0, top_6] / 0.8).softmax(dim=0))
    seen_V = torch.bincount(samples_1GT[0, :, 0], minlength=V) / 4_000
    assert_close(seen_V, expected_V, rtol=0, atol=0.03)


def test_a_group_depends_on_its_seed_and_index_and_not_on_its_ticket(
    tiny_recipe: Recipe, settings: RolloutSettings
) -> None:
    guided = replace(settings, guidance_scale=2.0, learned_guidance_scale=2.0)
    together = drawn(tiny_recipe, guided)
    for place, index in enumerate(INDICES):
        alone = drawn(tiny_recipe, guided, (index,))
        assert alone.samples_BGT.equal(together.samples_BGT[place : place + 1])
        assert_close(alone.logprobs_BGT, together.logprobs_BGT[place : place + 1], rtol=0, atol=1e-5)
    other_seed = drawn(tiny_recipe, replace(guided, seed=1))
    assert (other_seed.samples_BGT != together.samples_BGT).any(dim=2).all()


def test_the_samples_of_a_group_differ_and_have_no_other_context_than_themselves(
    tiny_recipe: Recipe, settings: RolloutSettings
) -> None:
    draws = drawn(tiny_recipe, settings)
    assert draws.context_BT.shape == draws.targets_BT.shape == (B, 0)
    assert draws.hidden_BTD is None
    assert len({tuple(sample_T) for sample_T in draws.samples_BGT.flatten(0, 1).tolist()}) == B * G
    policy, samples_BGT = policy_of(tiny_recipe), draws.samples_BGT
    with torch.no_grad():
        logits_TV = policy({"label": torch.tensor([0])}, samples_BGT[1, 2][None, :-1])[0]
    of_one_T = logits_TV.log_softmax(dim=-1).gather(1, samples_BGT[1, 2][:, None])[:, 0]
    assert_close(draws.logprobs_BGT[1, 2], of_one_T, rtol=0, atol=1e-5)


def test_under_the_published_profile_samples_are_guided_and_log_probabilities_are_not(
    tiny_recipe: Recipe,
) -> None:
    changes = {
        "rollout": {"kind": "free_running", "guidance_scale": 3},
        "reward": {"mse": 0, "lpips": 0, "python": "tests.own_terms:term"},
        "learner.prior": "kl",
        "context.noise": 0,
    }
    corrected = RolloutSettings.of(with_changes(tiny_recipe, changes))
    published = RolloutSettings.of(with_changes(tiny_recipe, changes | {"profile": "published"}))
    ours, theirs = drawn(tiny_recipe, corrected), drawn(tiny_recipe, published)
    assert ours.samples_BGT.equal(theirs.samples_BGT)
    policy = policy_of(tiny_recipe)
    unguided = own_logprobs(
        GuidedPolicy(policy, 1.0, policy), condition_of(tiny_recipe), theirs.samples_BGT, published.distribution
    )
    assert theirs.logprobs_BGT.equal(unguided)
    assert (ours.logprobs_BGT - unguided).abs().max() > 0.1


def test_captions_of_half_precision_are_guided_under_bfloat16(tiny_recipe: Recipe) -> None:
    changes = {"policy.conditioning": "text", "policy.caption_dim": 6, "policy.caption_length": 3}
    recipe = with_changes(tiny_recipe, changes | {"source": {"kind": "parquet", "path": "shards"}})
    policy, condition = policy_of(recipe), condition_of(recipe)
    half = condition | {"caption_features": condition["caption_features"].half()}
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        both = with_null(policy, half)
        hidden = GuidedPolicy(policy, 2.0, policy).hidden(half, torch.zeros(B, T - 1, dtype=torch.long))
    assert (both["caption_features"].dtype, len(both["caption_features"])) == (torch.float16, 2 * B)
    assert hidden.shape == (B, T, 2 * 16)
    assert hidden.isfinite().all()
