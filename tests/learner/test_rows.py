"""Rows of the learner: a row a sample says what a row a group says.

Letters: N rows, K samples a row, T image tokens.
"""

import torch

from common.models.families import build_policy
from common.models.llamagen.spec import LlamaGenPolicySpec, TransformerSize
from learner.rows import Rows

N, K, T = 2, 3, 4
ROWS = Rows(
    condition={"label": torch.tensor([7, 8])},
    context_NT=torch.arange(N * (T - 1)).view(N, T - 1),
    targets_NT=torch.arange(N * T).view(N, T),
    samples_NKT=torch.arange(N * K * T).view(N, K, T),
    behaviour_logprobs_NKT=-torch.arange(N * K * T).view(N, K, T).float(),
    advantages_NKT=torch.arange(N * K).view(N, K).float(),
)


def test_every_sample_gets_a_row_with_what_its_group_shares() -> None:
    repeated = ROWS.repeated()
    assert len(repeated) == N * K
    assert repeated.condition["label"].tolist() == [7, 7, 7, 8, 8, 8]
    assert repeated.context_NT[2].equal(ROWS.context_NT[0])
    assert repeated.targets_NT[3].equal(ROWS.targets_NT[1])
    assert repeated.samples_NKT.shape == (N * K, 1, T)
    assert repeated.samples_NKT[4, 0].equal(ROWS.samples_NKT[1, 1])
    assert repeated.behaviour_logprobs_NKT[4, 0].equal(ROWS.behaviour_logprobs_NKT[1, 1])
    assert repeated.advantages_NKT[4, 0] == ROWS.advantages_NKT[1, 1]


def test_a_slice_takes_whole_rows() -> None:
    last = ROWS[1:]
    assert len(last) == 1
    assert last.condition["label"].tolist() == [8]
    assert last.advantages_NKT.equal(ROWS.advantages_NKT[1:])


def test_dropping_conditions_changes_nothing_else() -> None:
    size = TransformerSize(num_layers=1, num_heads=1, dim=8, ffn_multiple=8)
    policy = build_policy(
        LlamaGenPolicySpec(size=size, num_classes=9, checkpoint=""), codebook_size=8, grid_size=2
    )
    dropped = ROWS.without_conditions(policy, torch.tensor([False, True]))
    assert dropped.condition["label"].tolist() == [7, 9]
    assert dropped.samples_NKT is ROWS.samples_NKT
