"""The whole service in one process, on a stand-in for Ray: what a run leaves, survives and refuses."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from actors import rollout_actor, ticket_work
from actors.rollout_actor import RolloutActor
from common.config.recipe import Recipe
from common.errors import ClusterError, LearnerLostError, RecipeError
from common.facts import (
    ActorJoined,
    ActorLost,
    CheckpointWritten,
    Ended,
    LearnerLost,
    Resumed,
    StepLearned,
    TicketDelivered,
)
from common.models.llamagen.transformer import LlamaGenTransformer
from common.models.llamagen.vq_tokenizer import VQTokenizer
from common.models.loading import load_policy, load_tokenizer
from deploy.reporting.curves import step_charts
from deploy.runs.local_run import run_local
from deploy.runs.records import read_run
from deploy.service.control_actor import ControlActor, control_name
from deploy.service.driver import Outcome, Parts, train
from learner import learner_actor
from learner.learner_actor import LearnerActor
from tests.conftest import run_recipe
from tests.deploy.service import scripted
from tests.fakes import DiesError, FakeRay, FakeSession, Late, Told
from tests.service.reading import digest, events, learned_tickets, lines, summary

STEPS = 5


class Stops:
    """A sink that asks the run to stop once a step is learned."""

    def __init__(self, step: int):
        self._step = step

    def record(self, fact: Any) -> None:
        if isinstance(fact, StepLearned) and fact.report.step == self._step:
            signal.raise_signal(signal.SIGTERM)


def served(recipe: Recipe, ray: FakeRay | None = None, *sinks: Any, **actors: type) -> Outcome:
    ray = ray or FakeRay()
    return train(recipe, Parts(ray=ray, session=FakeSession(ray), sinks=sinks, **actors))


@pytest.fixture(scope="module")
def undisturbed(tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The digest of the weights of the run that nothing happens to."""
    return digest(run_local(run_recipe(tiny_weights, tmp_path_factory.mktemp("runs"), "local")).path)


def losses(run: Path) -> list[float]:
    return [line["loss"] for line in lines(run / "metrics.jsonl")]


@pytest.mark.parametrize("changes", [{}, {"advantage.credit": "token"}, {"reward.decode_dtype": "bfloat16"}])
def test_one_and_two_actors_give_the_losses_and_weights_of_local_bit_for_bit(small_run, changes):
    local = run_local(small_run("local", changes)).path
    expected = losses(local)
    assert len(expected) == STEPS
    for count in (1, 2):
        run = served(small_run(f"served-{count}", changes | {"actors.count": count})).folder.path
        assert losses(run) == pytest.approx(expected, rel=0, abs=1e-6)
        assert digest(run) == digest(local)
        assert learned_tickets(run) == list(range(STEPS * 4))


def test_actors_and_local_compile_the_decoder_for_a_ticket_where_the_policy_is_compiled(
    small_run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def for_scoring(tokenizer: VQTokenizer, *wanted: Any) -> VQTokenizer:
        asked.append(wanted)
        return tokenizer

    asked: list[Any] = []
    monkeypatch.setattr(VQTokenizer, "for_scoring", for_scoring)
    monkeypatch.setattr(LlamaGenTransformer, "compile_blocks", lambda _: None)
    changes = {"compute.compile": True, "learner.num_steps": 1}
    run_local(small_run("local", changes))
    recipe = small_run("served", changes)
    served(recipe)
    num_pictures = recipe.actors.images_per_ticket * recipe.group.size
    assert asked == [(torch.float32, num_pictures), (torch.float32, num_pictures)]


def test_a_run_tells_what_happens_in_order_and_leaves_its_folder(small_run) -> None:
    told = Told()
    outcome = served(small_run("run", {"checkpoint.every": 3}), None, told)
    names = told.names
    assert names[:3] == ["started", "rank_joined", "actor_joined"]
    assert names[-1] == "succeeded"
    assert [fact.step for fact in told.of(CheckpointWritten)] == [3, 5]
    assert len(told.of(TicketDelivered)) == STEPS * 4
    assert told.of(Resumed) == []
    assert outcome.stop_signal is None
    left = {path.name for path in outcome.folder.path.iterdir()}
    assert left == {
        "recipe.json",
        "metrics.jsonl",
        "events.jsonl",
        "checkpoints",
        "summary.json",
        "run.lock",
        "run.log",
    }


def test_a_stopped_run_goes_on_where_it_was_and_ends_as_an_undisturbed_one(small_run, undisturbed: str) -> None:
    stopped = served(small_run("run"), None, Stops(2))
    assert stopped.stop_signal == signal.SIGTERM
    assert (stopped.summary["status"], stopped.summary["steps"]) == ("stopped", 2)
    told = Told()
    run = served(small_run("run"), None, told).folder.path
    (resumed,) = told.of(Resumed)
    assert resumed.step == 2
    assert [fact.report.step for fact in told.of(StepLearned)] == [3, 4, 5]
    assert digest(run) == undisturbed
    assert learned_tickets(run) == list(range(STEPS * 4))


def test_a_run_that_is_asked_to_stop_from_elsewhere_ends_stopped_with_a_checkpoint(small_run) -> None:
    class SlowRank(scripted.Rank):
        def train(self, *step: Any) -> Any:
            return Late(2.0, super().train(*step))

    class AsksToStop:
        def record(self, fact: Any) -> None:
            if isinstance(fact, StepLearned) and fact.report.step == 2:
                (control,) = [actor for actor in ray.actors if actor.options.get("name") == control_name("run")]
                control.ask.remote({"stop": True})

    ray, told = FakeRay(), Told()
    actors = {"rollout_actor": scripted.Actor, "learner_actor": SlowRank}
    outcome = served(small_run("run", {"learner.num_steps": 100}), ray, AsksToStop(), told, **actors)
    steps = outcome.summary["steps"]
    assert 2 <= steps < 6
    assert (outcome.summary["status"], outcome.stop_signal) == ("stopped", signal.SIGTERM)
    assert [fact.step for fact in told.of(CheckpointWritten)] == [steps]
    assert told.names.index("stop_asked_for") < told.names.index("checkpoint") < told.names.index("stopped")
    assert summary(outcome.folder.path) == outcome.summary
    assert not (outcome.folder.path / "ray.json").exists()


def test_the_loss_of_every_rank_begins_the_service_again_from_the_newest_checkpoint(
    small_run, undisturbed: str
) -> None:
    class DiesInStep5(LearnerActor):
        has_died = False

        def train(self, pieces, num_groups):
            if self.step() == 4 and not DiesInStep5.has_died:
                DiesInStep5.has_died = True
                raise DiesError("out of memory")
            return super().train(pieces, num_groups)

    told = Told()
    run = served(small_run("run", {"checkpoint.every": 3}), None, told, learner_actor=DiesInStep5).folder.path
    (lost,) = told.of(LearnerLost)
    assert lost.resumed_from.endswith("step-000003")
    assert lost.reason.startswith("all 1 learner ranks were lost in step 5")
    assert [fact.step for fact in told.of(Resumed)] == [3]
    assert [line["step"] for line in lines(run / "metrics.jsonl")] == [1, 2, 3, 4, 5]
    assert digest(run) == undisturbed
    assert learned_tickets(run) == list(range(STEPS * 4))


def test_a_learner_that_dies_before_its_first_checkpoint_again_and_again_ends_the_run(small_run) -> None:
    class Dying(LearnerActor):
        def train(self, pieces, num_groups):
            raise DiesError

    told = Told()
    with pytest.raises(LearnerLostError, match="all 1 learner ranks were lost in step 1"):
        served(small_run("run"), None, told, learner_actor=Dying)
    assert len(told.of(LearnerLost)) == 2
    (ended,) = told.of(Ended)
    assert ended.summary["error"].startswith("LearnerLostError: all 1 learner ranks")


def test_an_actor_that_dies_is_replaced_and_changes_nothing(small_run, undisturbed: str) -> None:
    class DiesAtTicket9(RolloutActor):
        has_died = False

        def roll_out(self, ticket, version, snapshot):
            if ticket.ticket_id == 9 and not DiesAtTicket9.has_died:
                DiesAtTicket9.has_died = True
                raise DiesError("killed")
            return super().roll_out(ticket, version, snapshot)

    told = Told()
    run = served(small_run("run"), None, told, rollout_actor=DiesAtTicket9).folder.path
    (lost,) = told.of(ActorLost)
    assert (lost.actor, lost.reason, 9 in lost.tickets) == ("actor-0", "killed", True)
    assert [fact.actor for fact in told.of(ActorJoined)] == ["actor-0", "actor-1"]
    assert summary(run)["actor_restarts"] == 1
    assert digest(run) == undisturbed
    assert learned_tickets(run) == list(range(STEPS * 4))


def test_a_kl_prior_is_that_of_local_and_shown_in_the_report(small_run) -> None:
    changes = {"learner.prior": "kl", "learner.lr": 1e-2}
    run = served(small_run("run", changes)).folder.path
    local = run_local(small_run("local", changes)).path
    priors = [line["kl_prior"] for line in lines(run / "metrics.jsonl")]
    assert priors[0] == pytest.approx(0, abs=1e-6)
    assert priors[-1] > 1e-3
    assert priors == pytest.approx([line["kl_prior"] for line in lines(local / "metrics.jsonl")], abs=1e-6)
    assert digest(run) == digest(local)
    charts = {chart.title: chart for chart in step_charts(read_run(str(run)).steps)}
    assert {series.name: series.values for series in charts["Loss"].series}["KL prior"] == priors
    assert len(charts["KL"].series[0].values) == STEPS


def test_a_broken_image_is_skipped_counted_and_named(small_run, pictures: Path) -> None:
    (pictures / "b" / "broken.png").write_bytes(b"not a picture")
    (pictures / "b" / "0.png").unlink()
    source = {"kind": "image_folder", "path": str(pictures)}
    run = served(small_run("run", {"source": source, "learner.num_steps": 3})).folder.path  # 24 of 12 images
    named = [(event["image_id"], event["is_quarantined"]) for event in events(run, "image_skipped")]
    assert named == [("b/broken.png", False)] * 2
    assert (summary(run)["images_skipped"], summary(run)["groups_learned"]) == (2, 22)
    assert sum(line["num_groups"] for line in lines(run / "metrics.jsonl")) == 22
    assert learned_tickets(run) == list(range(3 * 4))


def test_nan_in_a_reward_a_log_probability_and_a_gradient_are_named_and_survived(
    small_run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Samples 5, 10 and 11, and the gradient of step 4."""
    nan, at = float("nan"), {"ticket": -1, "step": -1}

    class Actor(RolloutActor):
        def roll_out(self, ticket, *policy):
            at["ticket"] = ticket.ticket_id
            return super().roll_out(ticket, *policy)

    class Learner(LearnerActor):
        def train(self, *step):
            at["step"] = self.step()
            return super().train(*step)

    def spoiled(load, method, spoil):
        def loaded(*given, **keys):
            model = load(*given, **keys)
            sound = getattr(model, method)
            setattr(model, method, lambda *inputs: spoil(sound(*inputs)))
            return model

        return loaded

    def spoil_sample_5(pixels_NCHW):
        if at["ticket"] == 2:
            pixels_NCHW[5] = nan  # of groups of 4, in the second
        return pixels_NCHW

    def load_learning_policy(*given):
        policy = load_policy(*given)
        parameter = next(policy.parameters())
        parameter.register_hook(lambda gradient: gradient * (nan if at["step"] == 3 else 1))
        return policy

    monkeypatch.setattr(ticket_work, "load_tokenizer", spoiled(load_tokenizer, "decode", spoil_sample_5))
    spoil_logits = spoiled(load_policy, "logits", lambda logits: logits * (nan if at["ticket"] == 5 else 1))
    monkeypatch.setattr(rollout_actor, "load_policy", spoil_logits)
    monkeypatch.setattr(learner_actor, "load_trained", load_learning_policy)
    run = served(small_run("run"), rollout_actor=Actor, learner_actor=Learner).folder.path
    named = events(run, "image_skipped")
    assert [(event["sample_index"], event["reason"], event["is_quarantined"]) for event in named] == [
        (5, "non-finite reward.lpips", True),
        (10, "non-finite log-probability", True),
        (11, "non-finite log-probability", True),
    ]
    assert [event["step"] for event in events(run, "step_skipped")] == [4]
    assert [line["is_bad"] for line in lines(run / "metrics.jsonl")] == [False, False, False, True, False]
    assert [line["num_groups"] for line in lines(run / "metrics.jsonl")] == [7, 6, 8, 8, 8]
    assert summary(run)["status"] == "succeeded"
    assert learned_tickets(run) == list(range(STEPS * 4))


def test_scores_during_training_are_recorded_and_change_nothing(small_run, undisturbed: str) -> None:
    evaluation = {
        "evaluation.enabled": True,
        "evaluation.every": 2,
        "evaluation.num_samples": 20,
        "evaluation.num_held_out": 4,
        "evaluation.classifier": "deploy/recipes/mnist/classifier.safetensors",
        "evaluation.num_reference": 40,
        "sampling.batch_size": 10,
    }
    scored = served(small_run("scored", {"actors.count": 2} | evaluation)).folder.path
    evaluations = lines(scored / "evaluations.jsonl")
    assert [line["step"] for line in evaluations] == [0, 2, 4, 5]
    assert len({line["held_out_cross_entropy"] for line in evaluations}) == 4
    assert [event["step"] for event in events(scored, "scored")] == [0, 2, 4, 5]
    for step in (0, 2, 4, 5):
        assert (scored / "samples" / f"step-{step:06d}.png").is_file()
    assert digest(scored) == undisturbed
    assert learned_tickets(scored) == list(range(STEPS * 4))


def test_a_second_run_of_one_name_on_the_cluster_is_refused(small_run) -> None:
    ray = FakeRay()
    ray.start(ControlActor, name=control_name("run"))
    with pytest.raises(
        ClusterError, match=r"a run named run is at work on this cluster: choose another run\.name"
    ):
        served(small_run("run"), ray)


@pytest.mark.parametrize("key", ["seed", "group.size", "actors.images_per_ticket"])
def test_a_checkpoint_of_another_run_is_refused_by_the_key_that_differs(small_run, key: str) -> None:
    served(small_run("run"))
    with pytest.raises(RecipeError, match=rf"was made with another {key.removesuffix('.size')}: resume with"):
        served(small_run("run", {key: 4 if key == "actors.images_per_ticket" else 5}))


def test_a_broken_sink_is_told_of_and_stops_nothing(small_run) -> None:
    class Broken:
        def record(self, fact: Any) -> None:
            raise OSError("disk full")

    outcome = served(small_run("run"), None, Broken())
    assert outcome.summary["status"] == "succeeded"
    (event,) = events(outcome.folder.path, "sink_failed")
    assert (event["sink"], event["reason"]) == ("Broken", "OSError: disk full")
    assert json.loads((Path(outcome.folder.path) / "summary.json").read_text())["steps"] == STEPS
