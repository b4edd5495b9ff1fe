"""reAR's embedding regulariser: its loss written out, and its state over a resume."""

from pathlib import Path

import pytest
import torch

from common.config.load import with_changes
from common.config.recipe import Recipe
from common.models.loading import load_codes, load_policy
from learner.embedding_regulariser import EmbeddingRegulariser
from learner.train_step import Trainer

CPU = torch.device("cpu")


@pytest.fixture
def recipe(tiny_recipe: Recipe, tiny_weights: Path) -> Recipe:
    changes = {
        "learner.embedding_weight": 1.0,
        "policy.checkpoint": str(tiny_weights / "policy.safetensors"),
        "tokenizer.checkpoint": str(tiny_weights / "tokenizer.safetensors"),
    }
    return with_changes(tiny_recipe, changes)


def test_the_loss_asks_early_states_for_the_token_read_and_later_ones_for_the_next(recipe: Recipe) -> None:
    policy, codes_VD = load_policy(recipe, CPU), load_codes(recipe, CPU)
    regulariser = EmbeddingRegulariser(policy, recipe, CPU)
    draws = torch.Generator().manual_seed(0)
    target_T, context_T = torch.randint(20, (64,), generator=draws), torch.randint(20, (63,), generator=draws)
    condition = {"label": torch.tensor([3])}
    with regulariser.watching():
        policy(condition, context_T[None], head=False)
    (loss,) = regulariser(target_T[None])

    x_1SW = torch.cat([policy.cls_embedding(condition), policy.tok_embeddings(context_T[None])], dim=1)
    rope = policy.rope(CPU)[:, :64]
    first_1SW = policy.layers[0](x_1SW, rope, None, None)  # place s reads token s - 1; place 0 the class
    second_1SW = policy.layers[1](first_1SW, rope, None, None)  # the last of two: 0.75 of 2, rounded
    wanted = 0.0
    for s in range(64):
        if s > 0:
            read = regulariser.read(first_1SW[0, s])
            wanted += (1 - torch.cosine_similarity(read, codes_VD[target_T[s - 1]], dim=0)).item() / 63
        following = regulariser.following(second_1SW[0, s])
        wanted += (1 - torch.cosine_similarity(following, codes_VD[target_T[s]], dim=0)).item() / 64
    assert loss.item() == pytest.approx(wanted, rel=1e-4)


def test_every_rank_begins_with_the_same_networks_and_a_resumed_one_has_those_that_were_trained(
    recipe: Recipe,
) -> None:
    one, other = (Trainer(load_policy(recipe, CPU), recipe, CPU) for _ in range(2))
    begun = one.optimizer_arrays()
    same = {name: array.copy() for name, array in other.optimizer_arrays().items()}
    assert begun.keys() == same.keys()
    assert len(begun) == 8  # two networks of two layers, no moments yet
    assert all((begun[name] == same[name]).all() for name in begun)
    regulariser = one._regulariser
    assert regulariser is not None
    with regulariser.watching():
        logits = one.model({"label": torch.tensor([3])}, torch.zeros(1, 63, dtype=torch.long))
    (regulariser(torch.ones(1, 64, dtype=torch.long)).sum() + logits.square().sum()).backward()
    one.optimizer.step()
    state = {name: array.copy() for name, array in one.optimizer_arrays().items()}
    other.load_optimizer_arrays(state)
    resumed = other.optimizer_arrays()
    assert resumed.keys() == state.keys()
    assert all((resumed[name] == state[name]).all() for name in state)
    assert not (state["embedding_regulariser.read.0.weight"] == same["embedding_regulariser.read.0.weight"]).all()
