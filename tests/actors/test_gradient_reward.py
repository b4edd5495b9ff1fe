"""The reward's gradient at the sampled codes, against what really happens when a token is swapped.

Letters: B images, G samples per image, T image tokens, V codebook entries, D numbers of a code, C, H, W of a
picture.
"""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from actors.code_credit import code_credit
from actors.rewards.build import build_reward, reward_of
from actors.rewards.decoded_reward import DecodedReward
from actors.rewards.own_term import OwnTerm
from actors.rewards.pixel_errors import AbsoluteError, SquaredError
from actors.rewards.term import Sources
from common.clock import StageClock
from common.code_credit import codebook_codes
from common.config.algorithm import RewardSection
from common.config.recipe import Recipe
from common.models.families import TokenizerModule, build_tokenizer
from common.protocols import ImageTokenizer
from common.reward_terms import RewardTerms
from common.token_distribution import TokenDistribution

T, V, D, H = 4, 6, 3, 2


class LinearDecoder:
    """A picture is one product with the codes of all places, so that places mix and nothing bends."""

    num_tokens, codebook_size = T, V

    def __init__(self) -> None:
        draws = torch.Generator().manual_seed(0)
        self.codes_VD = torch.randn(V, D, generator=draws, dtype=torch.float64)
        self._weights = torch.randn(D * T, 3 * H * H, generator=draws, dtype=torch.float64)
        self.decoded_at_once: list[int] = []

    def encode(self, pixels_BCHW: Tensor) -> Tensor:
        raise NotImplementedError

    def codes(self, tokens: Tensor) -> Tensor:
        return self.codes_VD[tokens]

    def decode(self, tokens_BT: Tensor) -> Tensor:
        return self.decode_codes(self.codes(tokens_BT).mT.unflatten(2, (H, H)))

    def decode_codes(self, codes_BDhw: Tensor) -> Tensor:
        self.decoded_at_once.append(len(codes_BDhw))
        return (codes_BDhw.flatten(1) @ self._weights).view(-1, 3, H, H)


class Probe:
    """A term that is linear in the pixels: their mean under fixed weights."""

    higher_is_better, stage = False, "score"

    def measure(self, decoded_BGCHW: Tensor, sources: Sources) -> Tensor:
        weights_CHW = torch.linspace(-1, 1, 3 * H * H).view(3, H, H)
        return (decoded_BGCHW * weights_CHW).mean(dim=(2, 3, 4))


def sources(num_images: int) -> Sources:
    pixels_BCHW = torch.rand(num_images, 3, H, H, generator=torch.Generator().manual_seed(1)) * 2 - 1
    return Sources(pixels_BCHW, {}, tuple(f"{image}.png" for image in range(num_images)))


def tokens(*shape: int) -> Tensor:
    return torch.randint(V, shape, generator=torch.Generator().manual_seed(2))


def measured(reward: DecodedReward, tokens_BGT: Tensor) -> RewardTerms:
    return reward.measure(tokens_BGT, sources(len(tokens_BGT)), StageClock())


def gradient_of(terms: RewardTerms) -> Tensor:
    assert terms.gradient_BTD is not None
    return terms.gradient_BTD


def swaps(tokens_T: Tensor) -> Tensor:
    """Every grid that differs from `tokens_T` in one place at most, [T, V, T]."""
    swapped_TVT = tokens_T.repeat(T, V, 1)
    for place in range(T):
        swapped_TVT[place, :, place] = torch.arange(V)
    return swapped_TVT


def test_on_a_linear_decoder_it_prices_every_single_swap_exactly() -> None:
    section, tokenizer = RewardSection(mse=0, lpips=0, l1=0.7), LinearDecoder()
    reward = reward_of(section, tokenizer, {"l1": Probe()}, "gradient")
    tokens_11T = tokens(1, 1, T)
    terms = measured(reward, tokens_11T)
    before = terms.rewards(section.weights)
    swapped = measured(reward, swaps(tokens_11T[0, 0]).view(1, T * V, T)).rewards(section.weights).view(T, V)
    codes_VD = codebook_codes(tokenizer, torch.device("cpu"))
    gradient_TD = gradient_of(terms)[0]
    predicted_TV = gradient_TD @ codes_VD.T - (gradient_TD * codes_VD[tokens_11T[0, 0]]).sum(dim=1)[:, None]
    assert_close(predicted_TV, swapped - before, rtol=1e-4, atol=1e-6)
    assert predicted_TV.abs().max() > 0.1


def test_over_the_samples_of_a_group_it_is_the_mean_of_theirs() -> None:
    section = RewardSection(lpips=0)
    reward = reward_of(section, LinearDecoder(), {"mse": SquaredError()}, "gradient")
    tokens_1GT = tokens(1, 3, T)
    alone = [gradient_of(measured(reward, tokens_1GT[:, g : g + 1])) for g in range(3)]
    assert_close(gradient_of(measured(reward, tokens_1GT)), torch.stack(alone).mean(dim=0))
    assert not alone[0].equal(alone[1])


@pytest.mark.parametrize("at_once", [1, 2, 3, 5, 64])
@pytest.mark.parametrize("decoded_at_once", [1, 7, 64])
def test_pieces_bound_the_memory_and_change_nothing(at_once: int, decoded_at_once: int) -> None:
    def reward_and_tokenizer(**section: Any) -> tuple[DecodedReward, LinearDecoder]:
        tokenizer = LinearDecoder()
        terms = {"mse": SquaredError(), "l1": AbsoluteError(), "own": OwnTerm(in_the_group, False)}
        return reward_of(RewardSection(l1=0.5, lpips=0, **section), tokenizer, terms, "gradient"), tokenizer

    def in_the_group(decoded_BGCHW: Tensor, _: Sources) -> Tensor:
        """Of the whole group, which a piece must not tear apart."""
        return (decoded_BGCHW - decoded_BGCHW.mean(dim=1, keepdim=True)).square().mean(dim=(2, 3, 4))

    reward, tokenizer = reward_and_tokenizer(gradient_batch_size=at_once, decode_batch_size=decoded_at_once)
    pieces, whole = measured(reward, tokens(5, 3, T)), measured(reward_and_tokenizer()[0], tokens(5, 3, T))
    assert max(tokenizer.decoded_at_once) <= at_once
    assert_close(gradient_of(pieces), gradient_of(whole))
    assert list(pieces.terms) == ["mse", "l1", "own"]
    for name, term_BG in whole.terms.items():
        assert_close(pieces.terms[name], term_BG)


def test_terms_of_ones_own_are_measured_and_have_no_part_in_it() -> None:
    section = RewardSection(lpips=0, python={"tests.own_terms:term": 100.0})
    terms = {"mse": SquaredError(), "term": OwnTerm(lambda decoded, _: decoded.mean(dim=(2, 3, 4)), True)}
    with_own = measured(reward_of(section, LinearDecoder(), terms, "gradient"), tokens(2, 3, T))
    plain = reward_of(RewardSection(lpips=0), LinearDecoder(), {"mse": SquaredError()}, "gradient")
    assert gradient_of(with_own).equal(gradient_of(measured(plain, tokens(2, 3, T))))
    assert list(with_own.terms) == ["mse", "term"]
    assert with_own.higher_is_better == {"term"}


def test_a_term_that_fails_on_an_image_leaves_the_others_theirs() -> None:
    class PickyError(SquaredError):
        def measure(self, decoded_BGCHW: Tensor, sources: Sources) -> Tensor:
            if "1.png" in sources.image_ids:
                raise ValueError("no such picture")
            return super().measure(decoded_BGCHW, sources)

    section = RewardSection(lpips=0)
    terms = measured(reward_of(section, LinearDecoder(), {"mse": PickyError()}, "gradient"), tokens(3, 2, T))
    whole = measured(reward_of(section, LinearDecoder(), {"mse": SquaredError()}, "gradient"), tokens(3, 2, T))
    assert terms.failures == {1: "reward.mse failed: ValueError: no such picture"}
    assert gradient_of(terms)[1].isnan().all()
    for sound in (0, 2):
        assert_close(gradient_of(terms)[sound], gradient_of(whole)[sound])


def vq_of(recipe: Recipe) -> TokenizerModule:
    torch.manual_seed(0)
    return build_tokenizer(recipe.tokenizer, image_size=32).eval().requires_grad_(False)


def test_on_a_real_decoder_it_is_the_slope_of_the_reward(tiny_recipe: Recipe) -> None:
    """Central differences along random directions of the codes, in float64 up to the picture."""
    section, tokenizer = RewardSection(lpips=0, l1=0.3), vq_of(tiny_recipe).double()
    pixels_BCHW = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(3)) * 2 - 1
    tokens_BGT = torch.randint(20, (2, 1, 64), generator=torch.Generator().manual_seed(4))
    reward = build_reward(section, tokenizer, None, "gradient")
    terms = reward.measure(tokens_BGT, Sources(pixels_BCHW, {}, ("a", "b")), StageClock())
    codes_BTD = tokenizer.codes(tokens_BGT[:, 0])

    def reward_at(codes_BTD: Tensor) -> Tensor:
        decoded_BCHW = tokenizer.decode_codes(codes_BTD.mT.unflatten(2, (8, 8)))
        errors_BCHW = decoded_BCHW - pixels_BCHW
        return -(errors_BCHW.square() + 0.3 * errors_BCHW.abs()).mean(dim=(1, 2, 3))

    for seed in range(3):
        direction_BTD = torch.randn(codes_BTD.shape, generator=torch.Generator().manual_seed(seed)).double()
        step = 1e-7 * direction_BTD
        slope_B = (reward_at(codes_BTD + step) - reward_at(codes_BTD - step)) / 2e-7
        assert_close((gradient_of(terms) * direction_BTD).sum(dim=(1, 2)), slope_B, rtol=1e-3, atol=1e-6)
        assert slope_B.abs().min() > 1e-5


def test_in_bfloat16_it_points_where_that_in_float32_does(tiny_recipe: Recipe) -> None:
    tokenizer = vq_of(tiny_recipe)
    tokens_BGT = torch.randint(20, (2, 2, 64), generator=torch.Generator().manual_seed(4))
    pixels_BCHW = torch.zeros(2, 3, 32, 32)
    one, other = (
        build_reward(RewardSection(lpips=0, decode_dtype=dtype), tokenizer, None, "gradient").measure(
            tokens_BGT, Sources(pixels_BCHW, {}, ("a", "b")), StageClock()
        )
        for dtype in ("float32", "bfloat16")
    )
    assert gradient_of(other).dtype == torch.float32
    cosine = torch.cosine_similarity(gradient_of(one).flatten(), gradient_of(other).flatten(), dim=0)
    assert 0.98 < cosine < 0.999999


def test_the_policys_spread_is_that_of_what_the_entries_are_worth() -> None:
    tokenizer: ImageTokenizer = LinearDecoder()
    draws = torch.Generator().manual_seed(5)
    hidden_BTD, gradient_BTD = torch.randn(2, T, V, generator=draws), torch.randn(2, T, D, generator=draws)
    samples_BGT = tokens(2, 3, T)
    distribution = TokenDistribution(temperature=0.7, top_k=4)
    credit = code_credit(lambda hidden: hidden, hidden_BTD, samples_BGT, gradient_BTD, tokenizer, distribution)
    codes_VD = codebook_codes(tokenizer, torch.device("cpu"))
    for image in range(2):
        for place in range(T):
            kept_K = hidden_BTD[image, place].topk(4).indices
            probability_K = (hidden_BTD[image, place, kept_K] / 0.7).softmax(dim=0)
            worth_K = codes_VD[kept_K] @ gradient_BTD[image, place]
            variance = (probability_K * worth_K.square()).sum() - (probability_K * worth_K).sum() ** 2
            assert credit.spread_BT[image, place] == pytest.approx(float(variance.sqrt()), rel=1e-4)
            mean_D = codes_VD[samples_BGT[image, :, place]].mean(dim=0)
            assert_close(credit.mean_code_BTD[image, place], mean_D)
