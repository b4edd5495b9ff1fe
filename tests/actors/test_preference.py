"""Preference rewards by small CLIPs of random weights.

Letters: B images, G samples per image, N pictures, C, H, W of a picture.
"""

from pathlib import Path

import open_clip
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close

from actors.rewards.preference import RewardModels, check_preference
from actors.rewards.table import build_terms, load_judges
from actors.rewards.term import Sources
from common.config.recipe import Recipe
from common.errors import CheckpointError, DataError
from common.models.clip.preprocess import prepared
from tests.clips import LENGTH, random_clip, reward_models

CPU = torch.device("cpu")
PROMPTS = ("a red cat", "the cat on the acat")
WEIGHTS = {"clip": 0.05, "hps": 5.0, "pickscore": 1.0, "aesthetic": 0.5}


@pytest.fixture
def recipe(tiny_recipe: Recipe, tmp_path: Path) -> Recipe:
    section = tiny_recipe.reward.model_copy(update=WEIGHTS | {"mse": 0.0, "lpips": 0.0})
    return tiny_recipe.model_copy(update={"reward": section, "reward_models": reward_models(tmp_path)})


def samples() -> Tensor:
    """[B, G, C, H, W] around [-1, 1], not clamped."""
    return torch.randn(2, 3, 3, 16, 16, generator=torch.Generator().manual_seed(3))


def sources(*texts: str) -> Sources:
    return Sources(torch.zeros(len(texts), 3, 16, 16), {}, tuple("ab"), texts)


def embedded(seed: int, quick_gelu: bool, vocabulary: Path, prompts: list[str]) -> tuple[Tensor, Tensor]:
    """By open_clip: [B, G, E] and [B, 1, E]."""
    model = random_clip(quick_gelu, seed)
    tokens = open_clip.SimpleTokenizer(str(vocabulary), context_length=LENGTH)(prompts)
    with torch.no_grad():
        pictures = model.encode_image(prepared(samples().flatten(0, 1) / 2 + 0.5, 32), normalize=True)
        return pictures.unflatten(0, (2, 3)), model.encode_text(tokens, normalize=True)[:, None]


def test_each_reward_is_its_formula_over_the_embeddings_of_its_own_network(recipe: Recipe) -> None:
    vocabulary = Path(recipe.reward_models.vocabulary)
    terms = build_terms(recipe.reward, None, load_judges(recipe, CPU))
    assert list(terms) == ["clip", "hps", "pickscore", "aesthetic"]
    found = {name: term.measure(samples(), sources(*PROMPTS)) for name, term in terms.items()}
    prompts = [f"a photo of a {text}" for text in PROMPTS]  # the policy is conditioned on classes
    cosines = {}
    for name, seed, quick_gelu in (("clip", 1, True), ("hps", 2, False), ("pickscore", 3, False)):
        pictures, texts = embedded(seed, quick_gelu, vocabulary, prompts)
        cosines[name] = (pictures * texts).sum(-1)
    assert_close(found["clip"], 100 * cosines["clip"], atol=1e-4, rtol=0)
    assert_close(found["hps"], cosines["hps"], atol=1e-6, rtol=0)
    scale = random_clip(False, 3).logit_scale.detach().exp()
    assert_close(found["pickscore"], scale * cosines["pickscore"], atol=1e-4, rtol=0)
    head = torch.load(recipe.reward_models.aesthetic)
    hidden, _ = embedded(1, True, vocabulary, prompts)
    for place in (0, 2, 4):
        hidden = F.linear(hidden, head[f"layers.{place}.weight"], head[f"layers.{place}.bias"])
    assert_close(found["aesthetic"], hidden[..., 0], atol=1e-5, rtol=0)
    assert all(term.higher_is_better for term in terms.values())


def test_models_in_one_file_are_loaded_once(recipe: Recipe) -> None:
    models = RewardModels(recipe, CPU)
    assert models.judge("clip").clip is models.judge("aesthetic").clip
    assert models.judge("clip") is models.judge("clip")
    assert models.judge("clip").model == "ViT-3x128/8 at 32 px, quick_gelu, clip.pt"


def test_captions_are_prompts_as_they_are_and_pictures_without_words_are_refused(recipe: Recipe) -> None:
    term = RewardModels(recipe, CPU).term("clip")
    with pytest.raises(DataError, match="neither captions nor class names"):
        term.measure(samples(), sources("cat", ""))
    text = recipe.model_copy(update={"policy": recipe.policy.model_copy(update={"conditioning": "text"})})
    as_class = term.measure(samples(), sources("cat", "dog"))
    as_caption = (
        RewardModels(text, CPU).term("clip").measure(samples(), sources("a photo of a cat", "a photo of a dog"))
    )
    assert torch.equal(as_class, as_caption)


def test_the_aesthetic_score_needs_no_words(recipe: Recipe) -> None:
    RewardModels(recipe, CPU).term("aesthetic").measure(samples(), sources("", ""))


def test_parts_of_a_batch_make_no_difference(recipe: Recipe) -> None:
    small = recipe.model_copy(update={"reward_models": recipe.reward_models.model_copy(update={"batch_size": 2})})
    one, other = (
        RewardModels(each, CPU).term("hps").measure(samples(), sources(*PROMPTS)) for each in (recipe, small)
    )
    assert_close(one, other, atol=1e-6, rtol=0)


def test_check_names_the_models_and_what_is_missing(recipe: Recipe, tmp_path: Path) -> None:
    assert check_preference(recipe, "hps") == "hps by ViT-3x128/8 at 32 px (hps.pt)"
    assert check_preference(recipe, "aesthetic") == "aesthetic by ViT-3x128/8 at 32 px (head.pth)"
    published = recipe.model_copy(update={"reward_models": type(recipe.reward_models)()})
    with pytest.raises(
        CheckpointError, match=r"hf download xswu/HPSv2 HPS_v2\.1_compressed\.pt --local-dir checkpo"
    ):
        check_preference(published, "hps")
    for name, wanted in (
        ("clip", "OpenAI's ViT-L-14.pt, or another CLIP of OpenAI, open_clip or transformers"),
        ("pickscore", "a folder that `hf download yuvalkirstain/PickScore_v1 --local-dir FOLDER` made"),
    ):
        with pytest.raises(CheckpointError, match=f": point reward_models.{name} at {wanted}"):
            check_preference(published, name)
    for key, wanted in (("aesthetic", "LAION's head"), ("vocabulary", "OpenAI's bpe_simple_vocab_16e6.txt.gz")):
        without = recipe.reward_models.model_copy(update={key: "gone.gz"})
        with pytest.raises(CheckpointError, match=f"gone.gz: point reward_models.{key} at {wanted}"):
            check_preference(recipe.model_copy(update={"reward_models": without}), "aesthetic")


def test_a_head_for_another_width_is_refused_with_what_it_needs(recipe: Recipe, tmp_path: Path) -> None:
    layers = {"layers.0.weight": torch.zeros(1, 48), "layers.0.bias": torch.zeros(1)}
    torch.save(layers, tmp_path / "head.pth")
    with pytest.raises(CheckpointError, match=r"embeddings of 48 numbers, and those of ViT-.* have 32"):
        check_preference(recipe, "aesthetic")
    torch.save({"layers.0.weight": torch.zeros(2, 32), "layers.0.bias": torch.zeros(2)}, tmp_path / "head.pth")
    with pytest.raises(CheckpointError, match="no head of linear layers"):
        RewardModels(recipe, CPU).judge("aesthetic")
