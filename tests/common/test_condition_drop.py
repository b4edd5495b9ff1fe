"""Conditions left out. Letters: B images, L caption tokens, D width of their features."""

import pytest
import torch

from common.condition_drop import drop_conditions
from common.models.families import build_policy
from common.models.llamagen.spec import LlamaGenPolicySpec, TransformerSize

SIZE = TransformerSize(num_layers=1, num_heads=1, dim=8, ffn_multiple=8)
DROPPED_B = torch.tensor([False, True, False])


def policy_of(conditioning):
    spec = LlamaGenPolicySpec(
        size=SIZE, conditioning=conditioning, num_classes=5, caption_dim=4, caption_length=2, checkpoint=""
    )
    return build_policy(spec, codebook_size=8, grid_size=2)


def test_a_dropped_class_is_the_one_that_means_none() -> None:
    condition = drop_conditions(policy_of("class"), {"label": torch.tensor([3, 1, 4])}, DROPPED_B)
    assert condition["label"].tolist() == [3, 5, 4]


def test_a_dropped_caption_keeps_its_mask() -> None:
    policy = policy_of("text")
    features_BLD, mask_BL = torch.randn(3, 2, 4).half(), torch.tensor([[0, 1], [1, 1], [0, 1]])
    condition = drop_conditions(policy, {"caption_features": features_BLD, "caption_mask": mask_BL}, DROPPED_B)
    assert condition["caption_features"].dtype == torch.float16
    assert condition["caption_features"][[0, 2]].equal(features_BLD[[0, 2]])
    assert condition["caption_features"][1].equal(policy.cls_embedding.uncond_embedding.half())
    assert condition["caption_mask"].equal(mask_BL)


@pytest.mark.parametrize("dropped", [True, False])
def test_the_given_condition_is_left_as_it_is(dropped: bool) -> None:
    given = {"label": torch.tensor([3, 1, 4])}
    drop_conditions(policy_of("class"), given, torch.full((3,), dropped))
    assert given["label"].tolist() == [3, 1, 4]
