"""Whole runs whose reward judge actors measure, on a stand-in for Ray: the results are those of one process."""

from typing import Any

import pytest
import torch
from torch import Tensor

from actors import judging, ticket_work
from actors.judge_actor import JudgeActor
from actors.rewards.term import Sources
from actors.rollout_actor import RolloutActor
from common.facts import ImageSkipped, TicketDelivered
from deploy.runs.local_run import run_local
from tests import own_terms
from tests.deploy.service.test_driver import served
from tests.deploy.service.test_own_reward_term import FAILURES, image_of
from tests.fakes import Told
from tests.service.reading import digest, learned_tickets, lines

STEPS = 2
BASE = {"learner.num_steps": STEPS, "learner.images_per_step": 4, "reward.lpips": 0, "checkpoint.every": 100}
OWN = BASE | {"reward.python": {"tests.own_terms:term": 0.5, "tests.own_terms:Likeness": 2}}
FREE = BASE | {
    "rollout.kind": "free_running",
    "reward.mse": 0,
    "reward.classifier": 1,
    "learner.prior": "kl",
    "context.noise": 0,
}
KINDS = {
    "by sample": OWN | {"reward.classifier": 0.1},
    "by token": OWN | {"advantage.credit": "token"},
    "by gradient": OWN | {"advantage.credit": "gradient"},
    "free-running": FREE,
    "of both kinds": BASE | {
        "rollout.teacher_forced": 0.5, "rollout.free_running": 0.5, "reward.classifier": 1, "learner.prior": "kl",
    },
    "judges alone": BASE | {"reward.mse": 0, "reward.python": "tests.own_terms:darkness"},
}  # fmt: skip


@pytest.mark.parametrize("changes", KINDS.values(), ids=KINDS)
def test_with_judges_apart_or_within_and_any_number_of_actors_the_weights_are_the_same(
    small_run, changes: dict[str, Any]
) -> None:
    expected = digest(run_local(small_run("local", changes)).path)
    for num_actors, num_judges in ((1, 1), (2, 2)) if changes is KINDS["by sample"] else ((2, 2),):
        name = f"served-{num_actors}-{num_judges}"
        recipe = small_run(name, changes | {"actors.count": num_actors, "reward.actors.count": num_judges})
        told = Told()
        run = served(recipe, None, told).folder.path
        assert digest(run) == expected, name
        assert learned_tickets(run) == list(range(STEPS * 2))
        judged = [fact for fact in told.of(TicketDelivered) if fact.judge]
        share = 0.5 if recipe.rollout.free_running else 1  # teacher-forced groups need no judge there
        assert len(judged) == (STEPS * 2 * share)
        pictures_a_ticket = recipe.actors.images_per_ticket * recipe.group.size
        assert {fact.receipt.num_pictures_judged for fact in judged} <= {pictures_a_ticket}


def test_colocated_ranks_hand_their_pictures_over_as_well(small_run) -> None:
    changes = OWN | {"placement": "colocated", "actors.count": 0}
    expected = digest(run_local(small_run("local", changes)).path)
    run = served(small_run("served", changes | {"reward.actors.count": 1})).folder.path
    assert digest(run) == expected
    assert {line["num_judges"] for line in lines(run / "metrics.jsonl")} == {1}


class KeepsTables(RolloutActor):
    tables: list[Any] = []  # noqa: RUF012, emptied by each test

    def roll_out(self, *given: Any) -> Any:
        receipt, table = super().roll_out(*given)
        self.tables.append((receipt, table))
        return receipt, table


class KeepsJudged(JudgeActor):
    def judge(self, *given: Any) -> Any:
        receipt, table = super().judge(*given)
        KeepsTables.tables.append((receipt, table))
        return receipt, table


@pytest.mark.parametrize(("kind", "credit"), [*((kind, "sample") for kind in FAILURES), ("not finite", "token")])
def test_the_tables_are_equal_byte_for_byte_where_a_term_fails_on_an_image(
    small_run, monkeypatch: pytest.MonkeyPatch, kind: str, credit: str
) -> None:
    changes = BASE | {"reward.python": "tests.own_terms:term", "advantage.credit": credit, "learner.num_steps": 1}
    monkeypatch.setitem(own_terms.SPOILED, image_of(small_run("images", changes), 2), kind)
    tables, skipped = [], []
    for name, count in (("within", 0), ("apart", 1)):
        KeepsTables.tables = []
        told = Told()
        parts = {"rollout_actor": KeepsTables, "judge_actor": KeepsJudged}
        served(small_run(name, changes | {"reward.actors.count": count}), None, told, **parts)
        tables.append([(receipt, table) for receipt, table in KeepsTables.tables if not receipt.awaits_judges])
        skipped.append([fact.image for fact in told.of(ImageSkipped)])
    within, apart = tables
    assert skipped[0] == skipped[1]
    assert [image.reason for image in skipped[1]] == [FAILURES[kind]]
    for (receipt, table), (judged_receipt, judged) in zip(within, apart, strict=True):
        assert judged.schema.equals(table.schema, check_metadata=True)
        assert judged.equals(table)
        for name in ("ticket_id", "policy_version", "num_groups", "num_bytes", "num_tokens", "skipped"):
            assert getattr(judged_receipt, name) == getattr(receipt, name), name


class Misses:
    """A judge behind HTTP that gives one sample of each image no score, and all but one of the third image."""

    higher_is_better = True
    may_miss = True
    stage = "score"

    def __init__(self, _: Any) -> None:
        """Asks nobody."""

    def measure(self, decoded_BGCHW: Tensor, sources: Sources) -> Tensor:
        scores_BG = decoded_BGCHW.mean(dim=(2, 3, 4))
        scores_BG[:, 0] = torch.nan
        is_third_B = torch.tensor([image_id == THIRD[0] for image_id in sources.image_ids])
        scores_BG[is_third_B, :-1] = torch.nan
        return scores_BG


THIRD: list[str] = []


def test_samples_that_a_judge_misses_teach_nothing_wherever_it_is(
    small_run, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = BASE | {"reward.http": {"url": "http://judge"}}
    THIRD[:] = [image_of(small_run("images", changes), 2)]
    monkeypatch.setattr("actors.rewards.table.HttpScores", Misses)
    seen = []
    for name, count in (("within", 0), ("apart", 1)):
        told = Told()
        run = served(small_run(name, changes | {"reward.actors.count": count}), None, told).folder.path
        dropped = [line["num_dropped"] for line in lines(run / "metrics.jsonl")]
        seen.append((digest(run), dropped, [fact.image for fact in told.of(ImageSkipped)]))
    assert seen[0] == seen[1]
    assert seen[1][1] == [3, 4]
    assert [image.reason for image in seen[1][2]] == ["reward.http scored 1 of 4 samples"]


def test_reward_actors_load_no_judge_and_judge_actors_no_generator(
    small_run, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[str] = []
    real, real_tokenizer = judging.load_judges, ticket_work.load_tokenizer
    monkeypatch.setattr(judging, "load_judges", lambda *given: loaded.append("judges") or real(*given))
    monkeypatch.setattr(
        ticket_work, "load_tokenizer", lambda *given: loaded.append("decoder") or real_tokenizer(*given)
    )
    served(small_run("served", FREE | {"actors.count": 1, "reward.actors.count": 2}))
    assert sorted(loaded) == ["decoder", "judges", "judges"]
