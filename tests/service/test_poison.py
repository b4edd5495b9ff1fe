"""Numbers that are not finite, in a reward, a log-probability and a gradient: counted, named, survived."""

import pytest
import ray

from actors import rollout_pool
from actors.rollout_actor import READING, RolloutActor
from deploy.service.driver import train
from learner import rank_group
from learner.learner_actor import LearnerActor
from tests.service.reading import events, learned_tickets, lines, summary

pytestmark = pytest.mark.ray


def test_nan_in_a_reward_a_log_probability_and_a_gradient_are_named_and_survived(small_run, monkeypatch):
    nan = float("nan")

    def spoil_the_second(reward_terms):
        reward_terms.mse_BG[1] = nan
        return reward_terms

    class PoisonedActor(RolloutActor):
        def roll_out(self, ticket, *rest):
            reward, policy = self._pipeline._reward, self._policy
            terms, logits = reward.terms, policy.logits
            if ticket.ticket_id == 2:  # samples 4 and 5
                reward.terms = lambda *given: spoil_the_second(terms(*given))
            if ticket.ticket_id == 5:  # samples 10 and 11
                policy.logits = lambda *given: logits(*given) * nan
            try:
                return super().roll_out(ticket, *rest)
            finally:
                reward.terms = terms
                policy.__dict__.pop("logits", None)

    class PoisonedLearner(LearnerActor):
        def train(self, *arguments):
            parameter = next(self._trainer.policy.parameters())
            hook = parameter.register_hook(lambda gradient: gradient * (nan if self.step() == 3 else 1))
            try:
                return super().train(*arguments)
            finally:
                hook.remove()

    monkeypatch.setattr(rollout_pool, "_RemoteActor", ray.remote(concurrency_groups={READING: 1})(PoisonedActor))
    monkeypatch.setattr(rank_group, "_RemoteLearner", ray.remote(PoisonedLearner))
    run = train(small_run("poisoned", {"learner.num_steps": 5})).folder.path
    named = events(run, "image_skipped")
    assert [(event["sample_index"], event["reason"], event["is_quarantined"]) for event in named] == [
        (5, "non-finite reward", True),
        (10, "non-finite log-probability", True),
        (11, "non-finite log-probability", True),
    ]
    assert [event["step"] for event in events(run, "step_skipped")] == [4]
    assert [line["is_bad"] for line in lines(run / "metrics.jsonl")] == [False, False, False, True, False]
    assert [line["num_groups"] for line in lines(run / "metrics.jsonl")] == [7, 6, 8, 8, 8]
    assert summary(run)["status"] == "succeeded"
    assert learned_tickets(run) == list(range(5 * 4))
