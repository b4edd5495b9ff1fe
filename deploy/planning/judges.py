"""Models that judge pictures, as fake tensors: a CLIP has the sizes of its file if it is there, or of its name.

Letters: B images, G samples per image, N pictures, C, H, W of a picture.
"""

import re
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from actors.rewards.classifier import ClassLogProbability
from actors.rewards.own_term import OwnTerm
from actors.rewards.preference import clip_address
from actors.rewards.term import RewardTerm, Sources
from common.config.recipe import Recipe
from common.config.reward_models import Preference
from common.errors import CheckpointError
from common.models.clip.clip import ClipAddress, check_clip
from common.models.clip.network import Clip, ClipShape, TowerShape
from common.models.image_classifier import ImageClassifier

CLASSIFY = "classify"  # a stage of the count alone: in a run it is part of `score`

_TEXT = {"context_length": 77, "vocabulary": 49408}
B32 = ClipShape(TowerShape(768, 12, 12, 3072), TowerShape(512, 12, 8, 2048), 512, patch=32, grid=7, **_TEXT)
L14 = ClipShape(TowerShape(1024, 24, 16, 4096), TowerShape(768, 12, 12, 3072), 768, patch=14, grid=16, **_TEXT)
H14 = ClipShape(TowerShape(1280, 32, 16, 5120), TowerShape(1024, 24, 16, 4096), 1024, patch=14, grid=16, **_TEXT)
_NAMES = ((r"(?i)b[-/]?32|base[-_]patch32", B32), (r"(?i)h[-/]?14", H14))


def judge_shape(recipe: Recipe, name: Preference) -> ClipShape:
    """That of the file where it is on this machine. Else by name, and L/14 where that says nothing."""
    address = clip_address(recipe, name)
    by_name = (shape for pattern, shape in _NAMES if re.search(pattern, address.weights))
    usual = H14 if name in ("hps", "pickscore") else next(by_name, L14)
    if address.weights.startswith("hf://"):
        return usual
    try:
        return check_clip(address)
    except CheckpointError:
        return usual


@dataclass(frozen=True)
class UntrainedJudges:
    """The networks of a recipe's judges, as far as their sizes are known; those with one address are one."""

    networks: dict[str, Clip]  # by address
    addresses: dict[Preference, str]
    classifier: ImageClassifier | None

    @classmethod
    def of(cls, recipe: Recipe) -> "UntrainedJudges":
        """Build this inside a FakeTensorMode."""
        addresses = {name: clip_address(recipe, name) for name in recipe.reward.preferences}
        networks = {_key(address): Clip(judge_shape(recipe, name), "gelu") for name, address in addresses.items()}
        classifier = ImageClassifier(recipe.policy.num_classes) if recipe.reward.classifier else None
        judges = cls(networks, {name: _key(address) for name, address in addresses.items()}, classifier)
        for module in judges.modules:
            module.eval().requires_grad_(False)
        return judges

    @property
    def names(self) -> list[str]:
        """Such as `clip ViT-L/14`."""
        classifier = [] if self.classifier is None else ["classifier"]
        return classifier + [f"{name} {self.networks[key].shape.name}" for name, key in self.addresses.items()]

    @property
    def modules(self) -> list[nn.Module]:
        return [*self.networks.values(), *filter(None, [self.classifier])]

    def terms(self, recipe: Recipe) -> dict[str, RewardTerm]:
        """Those that judge a picture by itself. Terms of the user's own, and services, take nothing."""
        terms: dict[str, RewardTerm] = {
            name: OwnTerm(_no_work, higher_is_better=False) for name in recipe.reward.judged_weights
        }
        terms |= {name: self._preference(name, recipe) for name in self.addresses if name in terms}
        if self.classifier is not None and "classifier" in terms:
            terms["classifier"] = UntrainedClassifier(self.classifier)
        return terms

    def _preference(self, name: Preference, recipe: Recipe) -> "UntrainedTerm":
        return UntrainedTerm(self.networks[self.addresses[name]], name != "aesthetic", recipe)


class UntrainedTerm:
    """Does a `PreferenceTerm`'s work: pictures in batches, and a prompt per image; without the aesthetic head."""

    higher_is_better = True
    stage = "score"

    def __init__(self, network: Clip, reads_prompts: bool, recipe: Recipe):
        self._network, self._reads_prompts, self._section = network, reads_prompts, recipe.reward_models

    def measure(self, decoded_BGCHW: Tensor, _: Sources) -> Tensor:
        shape, autocast = self._network.shape, self._section.autocast
        B, G = decoded_BGCHW.shape[:2]
        dtype = torch.bfloat16 if autocast == "none" else getattr(torch, autocast)
        pixels_NCHW = (decoded_BGCHW.flatten(0, 1) + 1) / 2
        with torch.autocast("cpu", dtype=dtype, enabled=autocast != "none"):
            for part in pixels_NCHW.split(self._section.batch_size):
                self._network.embed_pictures(part.new_zeros(len(part), 3, shape.image_size, shape.image_size))
            if self._reads_prompts:
                self._network.embed_texts(torch.zeros(B, shape.context_length, dtype=torch.long))
        return decoded_BGCHW.new_zeros(B, G)


class UntrainedClassifier(ClassLogProbability):
    """Under a stage of its own: convolutions reach other rates than transformers."""

    stage = CLASSIFY


def _no_work(decoded_BGCHW: Tensor, _: Sources) -> Tensor:
    return decoded_BGCHW.new_zeros(decoded_BGCHW.shape[:2])


def _key(address: ClipAddress) -> str:
    return f"{address.weights} {address.activation}"


def num_bytes(judges: UntrainedJudges) -> int:
    return sum(parameter.nbytes for module in judges.modules for parameter in module.parameters())
