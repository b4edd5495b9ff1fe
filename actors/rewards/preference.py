"""Rewards that judge a picture by itself or by its prompt, with no picture to compare with.

    clip         100 · cos(picture, prompt)
    hps          cos, of a CLIP H/14 that was finetuned on people's choices (arXiv 2306.09341)
    pickscore    exp(scale) · cos, likewise (arXiv 2305.01569)
    aesthetic    LAION's head over the picture's embedding, about 1 to 10; the prompt has no say

Letters: B images, G samples per image, N pictures, E width of an embedding, C, H, W of a picture.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import torch
from torch import Tensor

from actors.rewards.aesthetic import AestheticHead, load_aesthetic_head
from actors.rewards.term import Sources
from common.config.recipe import Recipe
from common.config.reward_models import OBTAIN_FROM, WANTED, Preference
from common.errors import CheckpointError, DataError
from common.models.clip.clip import ClipAddress, LoadedClip, check_clip, load_clip

SECTION = "reward_models"
Score = Callable[[Tensor, Tensor | None], Tensor]  # of embeddings of pictures [..., E] and prompts [..., E]


@dataclass(frozen=True)
class Judge:
    """One of these rewards, on its model."""

    name: Preference
    model: str  # which one it is, for people
    clip: LoadedClip
    score: Score
    reads_prompts: bool
    batch_size: int

    def embed(self, pixels_NCHW: Tensor) -> Tensor:
        """Float32 [N, E] of pictures in [0, 1]."""
        return torch.cat([self.clip.embed_pictures(part) for part in pixels_NCHW.split(self.batch_size)])

    def judge(self, pixels_NCHW: Tensor, prompts: Sequence[str]) -> Tensor:
        """Float32 [N] of pictures in [0, 1] and their prompts."""
        return self.score(self.embed(pixels_NCHW), self.clip.embed_texts(prompts) if self.reads_prompts else None)


class PreferenceTerm:
    higher_is_better = True
    stage = "score"

    def __init__(self, judge: Judge, prompt_of: Callable[[str], str]):
        self._judge, self._prompt_of = judge, prompt_of

    def measure(self, decoded_BGCHW: Tensor, sources: Sources) -> Tensor:
        B, G = decoded_BGCHW.shape[:2]
        judge = self._judge
        embedded_BGE = judge.embed((decoded_BGCHW.flatten(0, 1) + 1) / 2).unflatten(0, (B, G))
        prompts_B1E = None
        if judge.reads_prompts:
            prompts = [self._prompt_of(text) for text in sources.texts]
            prompts_B1E = judge.clip.embed_texts(prompts)[:, None]
        return judge.score(embedded_BGE, prompts_B1E)


class RewardModels:
    """The models that a recipe names, each loaded when it is first asked for, and once."""

    def __init__(self, recipe: Recipe, device: torch.device):
        self._recipe, self._device = recipe, device
        self._clip = cache(self._load_clip)
        self.judge: Callable[[Preference], Judge] = cache(self._judge)

    def term(self, name: Preference) -> PreferenceTerm:
        """Raises CheckpointError."""
        return PreferenceTerm(self.judge(name), partial(prompt_of, self._recipe))

    @property
    def clip(self) -> LoadedClip:
        """That of `reward_models.clip`."""
        return self._clip(clip_address(self._recipe, "clip"))

    def _judge(self, name: Preference) -> Judge:
        section = self._recipe.reward_models
        clip = self._clip(clip_address(self._recipe, name))
        file = Path(getattr(section, name)).name
        score: Score
        match name:
            case "clip":
                score = partial(_scaled_cosine, 100.0)
            case "hps":
                score = partial(_scaled_cosine, 1.0)
            case "pickscore":
                score = partial(_scaled_cosine, clip.scale)
            case "aesthetic":
                score = partial(_of_pictures_alone, self._head(clip))
        return Judge(name, f"{clip.name}, {file}", clip, score, name != "aesthetic", section.batch_size)

    def _load_clip(self, address: ClipAddress) -> LoadedClip:
        autocast = self._recipe.reward_models.autocast
        return load_clip(address, self._device, None if autocast == "none" else getattr(torch, autocast))

    def _head(self, clip: LoadedClip) -> AestheticHead:
        head = load_aesthetic_head(self._recipe.reward_models.aesthetic).to(self._device)
        require_width(head, clip.width, clip.name)
        return head


def prompt_of(recipe: Recipe, text: str) -> str:
    """What a picture is asked for, from its caption or the name of its class. DataError where it has none."""
    if not text:
        raise DataError(
            "the pictures have neither captions nor class names, and clip, hps and pickscore judge by them: use a "
            "source that has some, or set those weights of reward, and evaluation.scores, without them"
        )
    return recipe.reward_models.class_prompt.replace("{}", text) if recipe.policy.conditioning == "class" else text


def clip_address(recipe: Recipe, name: Preference) -> ClipAddress:
    """Where the CLIP of one of these rewards is."""
    section = recipe.reward_models
    key = name if name != "aesthetic" else "aesthetic_clip" if section.aesthetic_clip else "clip"
    known = None if section.activation == "unknown" else section.activation
    return ClipAddress(
        weights=getattr(section, key),
        setting=f"{SECTION}.{key}",
        activation="gelu" if name in ("hps", "pickscore") else known,
        activation_setting=f"{SECTION}.activation",
        vocabulary=section.vocabulary,
        vocabulary_setting=f"{SECTION}.vocabulary",
        wanted=WANTED[key],
        wanted_vocabulary=WANTED["vocabulary"],
        obtain_from=OBTAIN_FROM.get(key, ""),
    )


def check_preference(recipe: Recipe, name: Preference) -> str:
    """What its model is. Raises CheckpointError where the files are missing or are not what they should be."""
    shape = check_clip(clip_address(recipe, name))
    if name == "aesthetic":
        require_width(load_aesthetic_head(recipe.reward_models.aesthetic), shape.embedding, shape.name)
    return f"{name} by {shape.name} ({Path(getattr(recipe.reward_models, name)).name})"


def require_width(head: AestheticHead, width: int, model: str) -> None:
    if head.width != width:
        raise CheckpointError(
            f"{SECTION}.aesthetic is a head for embeddings of {head.width} numbers, and those of {model} have "
            f"{width}: set {SECTION}.aesthetic_clip to OpenAI's ViT-L/14"
        )


def _scaled_cosine(scale: float, pictures: Tensor, prompts: Tensor | None) -> Tensor:
    assert prompts is not None, "of unit vectors"
    return scale * (pictures * prompts).sum(dim=-1)


def _of_pictures_alone(head: AestheticHead, pictures: Tensor, _: Tensor | None) -> Tensor:
    return head(pictures)
