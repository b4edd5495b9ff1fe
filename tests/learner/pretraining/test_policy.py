"""Next-token training of a generator. Letters: B images, T image tokens, V codebook entries."""

import math

import pytest
import torch
from torch import Tensor, nn

from common.config.recipe import Recipe
from common.models.families import build_policy
from common.protocols import Condition
from learner.pretraining.losses import next_token_loss

T, V = 4, 5
NULL = 10


class Notes:
    """A policy with logits of its own that notes what it is asked."""

    num_tokens, codebook_size = T, V

    def __init__(self, logits_BTV: Tensor) -> None:
        self.logits_BTV = logits_BTV

    def __call__(self, condition: Condition, context_BT: Tensor) -> Tensor:
        self.condition, self.context_BT = condition, context_BT
        return self.logits_BTV

    def null_condition(self, condition: Condition) -> Condition:
        return {name: torch.full_like(column, NULL) for name, column in condition.items()}

    def start_decoding(self, condition: Condition):
        raise NotImplementedError


def draws() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_the_loss_is_the_mean_cross_entropy_of_every_token_given_those_before() -> None:
    tokens_BT = torch.tensor([[0, 1, 2, 3]])
    logits_BTV = torch.zeros(1, T, V)
    logits_BTV[0, 1, 1] = math.log(4)  # probability 4/8 instead of 1/5
    policy = Notes(logits_BTV)
    loss, shown = next_token_loss(policy, tokens_BT, {"label": torch.tensor([7])}, 0.0, draws())
    assert loss.item() == pytest.approx((3 * math.log(5) + math.log(2)) / 4)
    assert policy.context_BT.tolist() == [[0, 1, 2]]
    assert policy.condition["label"].tolist() == [7]
    assert shown == {"token accuracy": 0.5}  # the first token is the first of equals


def test_each_condition_is_dropped_whole_with_the_asked_probability() -> None:
    B = 4000
    policy = Notes(torch.zeros(B, T, V))
    condition = {"label": torch.arange(B) % 10, "caption": torch.zeros(B, 3, 2)}
    next_token_loss(policy, torch.zeros(B, T, dtype=torch.int64), condition, 0.1, draws())
    dropped_B = policy.condition["label"] == NULL
    assert dropped_B.float().mean().item() == pytest.approx(0.1, abs=0.02)  # four standard deviations
    assert policy.condition["label"][~dropped_B].equal(condition["label"][~dropped_B])
    assert policy.condition["caption"].flatten(1).min(dim=1).values.eq(NULL).equal(dropped_B)
    assert policy.condition["caption"].flatten(1).max(dim=1).values.eq(NULL).equal(dropped_B)


def test_the_dropped_conditions_are_a_function_of_the_generator() -> None:
    policy, tokens_BT = Notes(torch.zeros(50, T, V)), torch.zeros(50, T, dtype=torch.int64)
    labels = []
    for seed in (1, 1, 2):
        generator = torch.Generator().manual_seed(seed)
        next_token_loss(policy, tokens_BT, {"label": torch.arange(50)}, 0.5, generator)
        labels.append(policy.condition["label"].tolist())
    assert labels[0] == labels[1] != labels[2]


def test_a_generator_learns_the_tokens_of_its_classes(tiny_recipe: Recipe) -> None:
    torch.manual_seed(0)
    model = build_policy(tiny_recipe.policy, codebook_size=20, grid_size=3)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02)
    tokens_BT = torch.randint(20, (4, 9), generator=draws())
    condition = {"label": torch.arange(4)}
    for step in range(60):
        loss, shown = next_token_loss(model, tokens_BT, condition, 0.0, draws())
        if step == 0:
            assert loss.item() == pytest.approx(math.log(20))  # training starts from the uniform distribution
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    assert shown["token accuracy"] > 0.9
