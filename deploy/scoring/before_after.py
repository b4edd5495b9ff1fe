"""The evaluation of a training run: the base model before, the result after, and yardsticks for comparison.

Yardsticks keep a result honest: sampling the base model at a lower temperature or with guidance needs no training,
and training with the cross-entropy prior alone no reward actor. The reward's contribution is what exceeds them.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from actors.evaluation.chunks import EvaluationChunk
from actors.evaluation.pictures import HeldOutPictures, grid, held_out_panels
from actors.judge_pool import JudgePool
from actors.pool_events import PublishedPolicy
from actors.rollout_pool import RolloutPool
from common.atomic import write_json
from common.config.recipe import Recipe
from common.facts import Fact, PictureSaved, ScoringStarted
from common.machine import prepare_device
from common.yardstick_facts import YardstickScored, YardstickStarted
from deploy.runs.progress_line import ProgressLine, chunks_text, progress_stream
from deploy.runs.run_folder import RunFolder
from deploy.scoring.background_evaluation import COLUMNS, save_picture, tell_evaluation
from deploy.scoring.prior_alone import PriorAlone
from deploy.scoring.scorer import Evaluation, OnChunk, Scorer, Scores, in_process, mean_scores, spread

NUM_SEEDS = 2
PRIOR_ALONE = "cross-entropy alone"
COOLER, GUIDED, AS_LONG = "before_at_compare_temperature", "before_at_compare_guidance", "prior_alone_as_long"
RunCounted = Callable[..., list[Any]]  # given chunks, and on_chunk to call after each


class BeforeAfter:
    def __init__(
        self,
        recipe: Recipe,
        folder: RunFolder,
        tell: Callable[[Fact], None],
        beat: Callable[[str], None],
        scorer: Scorer,
        publish: Callable[[int], PublishedPolicy],
        judges: JudgePool | None = None,
    ):
        """`publish` gives the learner's weights, which are those that are scored, as a policy version.

        `judges` complete what the actors leave to them, in a run that has some.
        """
        self._recipe = recipe
        self._tell = tell
        self._folder = folder
        self._beat = beat
        self._scorer = scorer
        self._publish, self._judges = publish, judges
        self._results: dict[str, Any] = {}
        self._base_pictures: dict[str, np.ndarray] = {}

    def before(self, pool: RolloutPool, base: PublishedPolicy) -> None:
        """Score the base over two seeds, and at the yardstick's temperature, unless a resumed run already has."""
        stored = self._folder.path / "before.json"
        stored_pictures = self._folder.samples / "before.npz"
        if base.version > 0 and stored.is_file() and stored_pictures.is_file():
            self._results, self._base_pictures = json.loads(stored.read_text()), dict(np.load(stored_pictures))
            return
        on_actors = partial(self._run_on, pool, base)
        evaluations = self._evaluate("the base", base.version, on_actors, num_seeds=NUM_SEEDS)
        tell_evaluation(self._tell, self._folder.samples, base.version, evaluations[0])
        self._base_pictures = {
            "free_running": evaluations[0].pictures_NHWC,
            "teacher_forced": _held_out(evaluations[0]).samples_NSHWC,
        }
        self._results |= {"before": mean_scores(evaluations), "noise": spread(evaluations)}
        if evaluations[0].better:
            self._results["better"] = dict(evaluations[0].better)
        for key, (title, sampling) in self._base_yardsticks().items():
            (evaluation,) = self._evaluate(title, base.version, on_actors, sampling=sampling)
            self._results[key] = evaluation.scores
            self._tell(YardstickScored(title, evaluation.scores))
        np.savez(stored_pictures, allow_pickle=False, **self._base_pictures)
        write_json(stored, self._results)

    def after(self, pool: RolloutPool, result: PublishedPolicy) -> dict[str, Any]:
        """Score the result over the same seeds, and the prior alone; write the picture. Returns all scores."""
        on_actors = partial(self._run_on, pool, result)
        evaluations = self._evaluate("the result", result.version, on_actors, num_seeds=NUM_SEEDS)
        tell_evaluation(self._tell, self._folder.samples, result.version, evaluations[0])
        self._results |= {"after": mean_scores(evaluations), "noise_after": spread(evaluations)}
        if self._recipe.evaluation.compare_prior:
            self._score_prior_alone()
        pictures = self._save_pictures(evaluations[0])
        for path in pictures.values():
            self._tell(PictureSaved(result.version, Path(path)))
        return self._results | pictures

    def _save_pictures(self, after: Evaluation) -> dict[str, str]:
        """Free-running samples, and teacher-forced ones with their source images, before and after."""
        free_running, held_out = self._folder.samples / "before_after.png", self._folder.samples / "held_out.png"
        pictures = (("before", self._base_pictures["free_running"]), ("after", after.pictures_NHWC))
        saved = {}
        if save_picture(free_running, [(title, grid(pixels, COLUMNS, after.names)) for title, pixels in pictures]):
            saved["picture"] = str(free_running)
        source, reconstruction, (_, samples_after) = held_out_panels(_held_out(after))
        before = replace(_held_out(after), samples_NSHWC=self._base_pictures["teacher_forced"])
        samples_before = held_out_panels(before)[2][1]
        panels = [source, reconstruction, ("samples before", samples_before), ("samples after", samples_after)]
        if save_picture(held_out, panels):
            saved["held_out_picture"] = str(held_out)
        return saved

    def _base_yardsticks(self) -> dict[str, tuple[str, dict[str, float]]]:
        """By key of the result: what it is, and how the base is sampled."""
        section, yardsticks = self._recipe.evaluation, {}
        if (cooler := section.compare_temperature) is not None:
            yardsticks[COOLER] = (f"the base at temperature {cooler:g}", {"temperature": cooler})
        if (scale := section.compare_guidance) is not None:
            yardsticks[GUIDED] = (f"the base at guidance scale {scale:g}", {"guidance_scale": scale})
        return yardsticks

    def _score_prior_alone(self) -> None:
        """After as many steps as the run has, and after as much time where the recipe asks for that."""
        self._tell(YardstickStarted(PRIOR_ALONE))
        device = prepare_device(self._recipe.compute)
        prior = PriorAlone(self._recipe, device, self._beat)
        prior.train(self._recipe.learner.num_steps)
        self._results["prior_alone"] = self._scores_of(prior, PRIOR_ALONE, device)
        if self._recipe.evaluation.compare_prior_time:
            prior.train_for(self._folder.training_seconds())
            what = f"{PRIOR_ALONE}, {prior.num_steps} steps"
            self._results |= {AS_LONG: self._scores_of(prior, what, device), "as_long_steps": prior.num_steps}

    def _scores_of(self, prior: PriorAlone, what: str, device: torch.device) -> Scores:
        def run_chunks(chunks: Sequence[EvaluationChunk], on_chunk: OnChunk) -> list[Any]:
            return in_process(self._recipe, prior.policy, device, on_chunk)(chunks)

        (evaluation,) = self._evaluate(what, prior.num_steps, run_chunks)
        self._tell(YardstickScored(what, evaluation.scores))
        return evaluation.scores

    def _evaluate(
        self,
        what: str,
        step: int,
        run_chunks: RunCounted,
        num_seeds: int = 1,
        sampling: Mapping[str, float] = {},
    ) -> list[Evaluation]:
        """`sampling`: temperature or guidance_scale, where they are not the recipe's."""
        self._tell(ScoringStarted(step, what))
        own = {"temperature": self._recipe.sampling.temperature} | dict(sampling)
        with closing(ProgressLine(progress_stream(self._recipe.log))) as line:

            def on_chunk(num_done: int, num_chunks: int) -> None:
                self._beat(f"scoring {what}, {num_done} of {num_chunks}")
                line.show(chunks_text(what, num_done, num_chunks, line.seconds))

            counted = partial(run_chunks, on_chunk=on_chunk)
            return self._scorer.evaluate(counted, num_seeds=num_seeds, **own)

    def _run_on(
        self, pool: RolloutPool, published: PublishedPolicy, chunks: Sequence[EvaluationChunk], on_chunk: OnChunk
    ) -> list[Any]:
        results: dict[int, Any] = {}
        publish_again = partial(self._publish, published.version)
        for index, result in pool.evaluate(chunks, published, publish_again, self._judges):
            results[index] = result
            on_chunk(len(results), len(chunks))
        return [results[index] for index in range(len(chunks))]


def _held_out(evaluation: Evaluation) -> HeldOutPictures:
    assert evaluation.held_out is not None, "an evaluation of drawn pictures shows its first held-out images"
    return evaluation.held_out
