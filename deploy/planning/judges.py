"""The CLIPs that judge pictures, as fake tensors: their sizes come from the file if it is there, or from its name.

Letters: B images, G samples per image, N pictures, C, H, W of a picture.
"""

import re
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from actors.rewards.preference import clip_address
from actors.rewards.term import Sources
from common.config.recipe import Recipe
from common.config.reward_models import PREFERENCES, Preference
from common.errors import CheckpointError
from common.models.clip.clip import ClipAddress, check_clip
from common.models.clip.network import Clip, ClipShape, TowerShape

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
    """The networks of a recipe's preferences; those with one address are one."""

    networks: dict[str, Clip]  # by address
    addresses: dict[Preference, str]

    @classmethod
    def of(cls, recipe: Recipe) -> "UntrainedJudges":
        """Build this inside a FakeTensorMode."""
        weights = {} if recipe.reward.actors.count else recipe.reward.weights  # else not in these processes
        names = [name for name in PREFERENCES if name in weights]
        addresses = {name: clip_address(recipe, name) for name in names}
        networks = {_key(address): Clip(judge_shape(recipe, name), "gelu") for name, address in addresses.items()}
        for network in networks.values():
            network.eval().requires_grad_(False)
        return cls(networks, {name: _key(address) for name, address in addresses.items()})

    @property
    def names(self) -> list[str]:
        """Such as `clip ViT-L/14`."""
        return [f"{name} {self.networks[key].shape.name}" for name, key in self.addresses.items()]

    def term(self, name: Preference, recipe: Recipe) -> "UntrainedTerm":
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
        with torch.autocast("cpu", dtype=dtype, enabled=autocast != "none"):
            prepared_NCHW = decoded_BGCHW.new_zeros(B * G, 3, shape.image_size, shape.image_size)
            for part in prepared_NCHW.split(self._section.batch_size):
                self._network.embed_pictures(part)
            if self._reads_prompts:
                self._network.embed_texts(torch.zeros(B, shape.context_length, dtype=torch.long))
        return decoded_BGCHW.new_zeros(B, G)


def _key(address: ClipAddress) -> str:
    return f"{address.weights} {address.activation}"


def num_bytes(judges: UntrainedJudges) -> int:
    modules: list[nn.Module] = list(judges.networks.values())
    return sum(parameter.nbytes for module in modules for parameter in module.parameters())
