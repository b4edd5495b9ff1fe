"""A signal, or `stop`, at whatever a run is at: it ends as stopped, says so once, and goes on when asked to."""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from common.errors import ClusterError, RecipeError
from common.facts import Ended, LearnerLost, StepLearned
from common.log import set_up_logging
from common.request_facts import Scaled, StopAskedFor
from deploy.cluster.stop_signals import StopAsked
from deploy.runs.run_lock import lock_run
from deploy.service import service
from deploy.service.control_actor import ControlActor, control_name
from deploy.service.driver import Outcome, Parts, train
from tests.deploy.service import scripted
from tests.fakes import DiesError, FakeRay, FakeSession, Late, Told
from tests.service.reading import events, summary

SCORED = {"evaluation.enabled": True, "evaluation.classifier": "deploy/recipes/mnist/classifier.safetensors"}


class Act:
    """Stands where the scores are taken, and does something there."""

    before: Callable[[], Any] = staticmethod(lambda: None)
    after: Callable[[], Any] = staticmethod(lambda: None)


@pytest.fixture
def act(monkeypatch: pytest.MonkeyPatch) -> Act:
    """Scoring that does what the test says."""
    act = Act()

    class Scores:
        def __init__(self, recipe, folder, tell, attend, scorer, publish, judges):
            self._attend = attend

        def _wait(self, phase):
            for _ in range(2):  # the answer to the first look comes with the second
                self._attend(phase)

        def before(self, pool, published):
            act.before()
            self._wait("scoring the base")

        def after(self, pool, published):
            act.after()
            self._wait("scoring the result")
            return {"after": {}, "picture": ""}

    monkeypatch.setattr(service, "BeforeAfter", Scores)
    monkeypatch.setattr(service, "Scorer", lambda recipe: None)
    monkeypatch.setattr("deploy.service.driver.require_sound", lambda recipe: None)
    return act


def served(recipe: Any, told: Told, ray: FakeRay | None = None, **actors: type) -> Outcome:
    ray = ray or FakeRay()
    actors = {"rollout_actor": scripted.Actor, "learner_actor": scripted.Rank} | actors
    return train(recipe, Parts(ray=ray, session=FakeSession(ray), sinks=(told,), **actors))


def ask(ray: FakeRay, request: dict[str, Any]) -> None:
    (control,) = [actor for actor in ray.actors if actor.options.get("name") == control_name("run")]
    control.ask.remote(request)
    ray.now += 2.0


def require_stopped(outcome: Outcome, told: Told, steps: int, number: int = signal.SIGINT) -> None:
    assert (outcome.summary["status"], outcome.summary["steps"]) == ("stopped", steps)
    assert outcome.stop_signal == number
    assert summary(outcome.folder.path) == outcome.summary
    assert [fact.status for fact in told.of(Ended)] == ["stopped"]
    assert len(told.of(StopAskedFor)) == 1
    assert told.names.index("stop_asked_for") < told.names.index("stopped")


def test_in_the_first_scoring(small_run, act: Act) -> None:
    act.before, told = (lambda: signal.raise_signal(signal.SIGINT)), Told()
    require_stopped(served(small_run("run", SCORED), told), told, steps=0)


def test_in_the_last_scoring_which_is_done_when_the_run_goes_on(small_run, act: Act) -> None:
    act.after, told = (lambda: signal.raise_signal(signal.SIGINT)), Told()
    stopped = served(small_run("run", SCORED), told)
    require_stopped(stopped, told, steps=5)
    act.after = lambda: None
    again = served(small_run("run", SCORED), Told())
    assert (again.summary["status"], again.stop_signal) == ("succeeded", None)
    assert again.summary["weights_sha256"] == stopped.summary["weights_sha256"]


def test_while_processes_load(small_run) -> None:
    class Signalled(scripted.Rank):
        def __init__(self, *given: Any):
            signal.raise_signal(signal.SIGTERM)

    told = Told()
    outcome = served(small_run("run"), told, learner_actor=Signalled)
    require_stopped(outcome, told, steps=0, number=signal.SIGTERM)
    assert outcome.summary["weights_sha256"] is None


@pytest.mark.parametrize(("where", "steps"), [("before", 0), ("after", 3)])
def test_by_the_command_in_a_scoring(where: str, steps: int, small_run, act: Act) -> None:
    ray, told = FakeRay(), Told()
    setattr(act, where, lambda: ask(ray, {"stop": True}))
    outcome = served(small_run("run", SCORED | {"learner.num_steps": 3}), told, ray)
    require_stopped(outcome, told, steps, signal.SIGTERM)


def test_a_signal_in_the_loop_finishes_the_step(small_run) -> None:
    class Stops(Told):
        def record(self, fact: Any) -> None:
            super().__call__(fact)
            if isinstance(fact, StepLearned) and fact.report.step == 2:
                signal.raise_signal(signal.SIGINT)

    told = Stops()
    outcome = served(small_run("run"), told)
    require_stopped(outcome, told, steps=2)
    assert told.of(StopAskedFor) == [StopAskedFor("SIGINT")]


def test_one_after_the_last_step_of_a_run_without_scores_takes_nothing_from_it(small_run) -> None:
    class Stops(Told):
        def record(self, fact: Any) -> None:
            super().__call__(fact)
            if isinstance(fact, StepLearned) and fact.report.step == 5:
                signal.raise_signal(signal.SIGINT)

    outcome = served(small_run("run"), Stops())
    assert (outcome.summary["status"], outcome.stop_signal) == ("succeeded", None)


def test_before_the_run_has_begun_nothing_is_left(small_run, tmp_path: Path) -> None:
    class Signalled(FakeSession):
        def open(self, recipe: Any) -> str:
            raise SystemExit(1)  # as Ray does at SIGTERM while it starts

    ray = FakeRay()
    with pytest.raises(StopAsked) as caught:
        train(small_run("run"), Parts(ray=ray, session=Signalled(ray)))
    assert caught.value.number == signal.SIGTERM
    assert not (tmp_path / "run").exists()


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.name != "run.lock"
    }


def test_a_train_that_fails_before_it_begins_leaves_a_runs_folder_as_it_was(small_run, tmp_path: Path) -> None:
    class Dead(FakeSession):
        def open(self, recipe: Any) -> str:
            raise ClusterError("no Ray cluster answers")

    served(small_run("run"), Told())
    before = contents(tmp_path / "run")
    ray = FakeRay()
    with pytest.raises(ClusterError, match="no Ray cluster answers"):
        train(small_run("run", {"learner.num_steps": 9}), Parts(ray=ray, session=Dead(ray)))
    ray.start(ControlActor, name=control_name("run"))
    with pytest.raises(ClusterError, match="a run named run is at work on this cluster"):
        train(small_run("run", {"learner.num_steps": 9}), Parts(ray=ray, session=FakeSession(FakeRay())))
    with lock_run(tmp_path / "run"), pytest.raises(RecipeError, match="is at work"):
        served(small_run("run", {"learner.num_steps": 9}), Told())
    assert contents(tmp_path / "run") == before


def test_a_run_in_a_folder_of_another_name_is_known_by_that_name(small_run) -> None:
    served(small_run("run"), Told())
    ray = FakeRay()
    outcome = served(small_run("run", {"resume": "never"}), Told(), ray)
    assert outcome.folder.path.name == "run-2"
    assert ray.actors[0].options["name"] == "control:run-2"
    assert '"name": "run-2"' in (outcome.folder.path / "recipe.json").read_text()


def test_a_number_of_actors_that_was_asked_for_outlives_the_learner(small_run) -> None:
    ray = FakeRay()

    class Dying(scripted.Rank):
        deaths = 0

        def train(self, *step: Any) -> Any:
            if self.steps == 3 and not Dying.deaths:
                Dying.deaths = 1
                raise DiesError("out of memory")
            return Late(2.0, super().train(*step))

    class Scales(Told):
        def record(self, fact: Any) -> None:
            super().__call__(fact)
            if isinstance(fact, StepLearned) and fact.report.step == 1 and not self.of(LearnerLost):
                ask(ray, {"scale": 3})

    told = Scales()
    changes = {"checkpoint.every": 1, "learner.num_steps": 8}
    outcome = served(small_run("run", changes), told, ray, learner_actor=Dying)
    assert told.of(Scaled) == [Scaled(1, 3, "asked for")]
    again = told.names[told.names.index("learner_lost") :]
    assert again.count("actor_joined") == 3
    assert outcome.summary["steps"] == 8


def test_a_lost_actor_and_a_resume_are_lines_of_the_log_in_the_runs_folder(small_run, tmp_path: Path) -> None:
    class Dying(scripted.Actor):
        deaths = 0

        def roll_out(self, *given: Any) -> Any:
            if not Dying.deaths:
                Dying.deaths = 1
                raise DiesError("out of memory")
            return super().roll_out(*given)

    set_up_logging()
    served(small_run("run", {"learner.num_steps": 3}), Told(), rollout_actor=Dying)
    served(small_run("run"), Told())
    log = (tmp_path / "run" / "run.log").read_text()
    assert "ERROR driver step 0: actor-0 lost with 2 tickets: out of memory" in log
    assert "driver step 3: resumed from " in log
    assert "driver step 3: going on from step 3" in log
    assert [event["step"] for event in events(tmp_path / "run", "started")] == [0, 3]


def test_where_the_learner_dies_after_a_stop_was_asked_for_the_run_stays_stopped(small_run, act: Act) -> None:
    class DiesInItsStep(scripted.Rank):
        def train(self, pieces: Any, num_groups: int) -> Any:
            if self.steps == 1:
                signal.raise_signal(signal.SIGINT)
                raise DiesError("killed with its pod")
            return super().train(pieces, num_groups)

    told = Told()
    outcome = served(small_run("run"), told, learner_actor=DiesInItsStep)
    require_stopped(outcome, told, steps=1)
    assert outcome.summary["weights_sha256"] is None
    assert told.of(LearnerLost) == []


def test_a_result_whose_ranks_die_while_it_is_scored_keeps_the_digest_of_its_weights(small_run, act: Act) -> None:
    ray, told = FakeRay(), Told()

    def lose_ranks() -> None:
        for actor in ray.actors:
            if isinstance(actor.self, scripted.Rank):
                ray.bury(actor, "killed")

    act.after = lose_ranks
    outcome = served(small_run("run", SCORED), told, ray)
    assert (outcome.summary["status"], outcome.summary["weights_sha256"]) == ("succeeded", "digest of step 5")
