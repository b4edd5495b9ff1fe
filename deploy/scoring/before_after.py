"""The evaluation of a training run: the base model before, the result after, and yardsticks for comparison.

Yardsticks keep a result honest: sampling the base model at a lower temperature costs nothing, and training with
the cross-entropy prior alone needs no reward actor. The reward's contribution is what exceeds them.
"""

import json
import logging
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from actors.evaluation.chunks import EvaluationChunk
from actors.evaluation.pictures import HeldOutPictures, grid, held_out_panels, save_panels
from actors.pool_events import PublishedPolicy
from actors.rewards.build import build_reward
from actors.rollout_pool import RolloutPool
from actors.sources.build import build_source
from common.atomic import write_json
from common.config.algorithm import NO_REWARD
from common.config.load import with_changes
from common.config.recipe import Recipe
from common.facts import Fact, PictureSaved, ScoringStarted
from common.machine import prepare_device
from common.models.loading import load_policy, load_tokenizer
from deploy.local import post_train
from deploy.runs.progress_line import ProgressLine, chunks_text, progress_stream
from deploy.runs.run_folder import RunFolder
from deploy.scoring.background_evaluation import COLUMNS, tell_evaluation
from deploy.scoring.scorer import Evaluation, OnChunk, Scorer, in_process, mean_scores, spread

log = logging.getLogger("vapi.evaluation")

NUM_SEEDS = 2
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
    ):
        """`publish` gives the learner's weights, which are those that are scored, as a policy version."""
        self._recipe = recipe
        self._tell = tell
        self._folder = folder
        self._beat = beat
        self._scorer = scorer
        self._publish = publish
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
        cooler = self._recipe.evaluation.compare_temperature
        if cooler is not None:
            (evaluation,) = self._evaluate(
                f"the base at temperature {cooler:g}", base.version, on_actors, temperature=cooler
            )
            self._results["before_at_compare_temperature"] = evaluation.scores
        np.savez(stored_pictures, allow_pickle=False, **self._base_pictures)
        write_json(stored, self._results)

    def after(self, pool: RolloutPool, result: PublishedPolicy) -> dict[str, Any]:
        """Score the result over the same seeds, and the prior alone; write the picture. Returns all scores."""
        on_actors = partial(self._run_on, pool, result)
        evaluations = self._evaluate("the result", result.version, on_actors, num_seeds=NUM_SEEDS)
        tell_evaluation(self._tell, self._folder.samples, result.version, evaluations[0])
        self._results |= {"after": mean_scores(evaluations), "noise_after": spread(evaluations)}
        if self._recipe.evaluation.compare_prior:
            self._results["prior_alone"] = self._prior_alone().scores
        pictures = self._save_pictures(evaluations[0])
        for path in pictures.values():
            self._tell(PictureSaved(result.version, Path(path)))
        return self._results | pictures

    def _save_pictures(self, after: Evaluation) -> dict[str, str]:
        """Free-running samples, and teacher-forced ones with their source images, before and after."""
        free_running, held_out = self._folder.samples / "before_after.png", self._folder.samples / "held_out.png"
        pictures = (("before", self._base_pictures["free_running"]), ("after", after.pictures_NHWC))
        save_panels(free_running, [(title, grid(pixels, COLUMNS)) for title, pixels in pictures])
        source, reconstruction, (_, samples_after) = held_out_panels(_held_out(after))
        before = replace(_held_out(after), samples_NSHWC=self._base_pictures["teacher_forced"])
        samples_before = held_out_panels(before)[2][1]
        panels = [source, reconstruction, ("samples before", samples_before), ("samples after", samples_after)]
        save_panels(held_out, panels)
        return {"picture": str(free_running), "held_out_picture": str(held_out)}

    def _prior_alone(self) -> Evaluation:
        """Train the base in this process with only the cross-entropy term, for the same number of steps."""
        log.info("training with the prior alone, as a yardstick")
        changes = {"learner.ce_weight": 1, "learner.prior": "ce", "advantage.credit": "sample"}
        recipe = with_changes(self._recipe, changes | NO_REWARD)
        device = prepare_device(recipe.compute)
        policy = load_policy(recipe, device)
        tokenizer = load_tokenizer(recipe, device)
        reward = build_reward(recipe.reward, tokenizer, perceptual=None)
        for report in post_train(policy, tokenizer, reward, build_source(recipe, "train"), recipe, device):
            self._beat(f"yardstick: the prior alone, step {report.step}")
        steps = recipe.learner.num_steps

        def run_chunks(chunks: Sequence[EvaluationChunk], on_chunk: OnChunk) -> list[Any]:
            return in_process(self._recipe, policy, device, on_chunk)(chunks)

        (evaluation,) = self._evaluate("the prior alone", steps, run_chunks)
        return evaluation

    def _evaluate(
        self, what: str, step: int, run_chunks: RunCounted, temperature: float | None = None, num_seeds: int = 1
    ) -> list[Evaluation]:
        self._tell(ScoringStarted(step, what))
        if temperature is None:
            temperature = self._recipe.sampling.temperature
        with closing(ProgressLine(progress_stream(self._recipe.log))) as line:

            def on_chunk(num_done: int, num_chunks: int) -> None:
                self._beat(f"scoring {what}, {num_done} of {num_chunks}")
                line.show(chunks_text(what, num_done, num_chunks, line.seconds))

            counted = partial(run_chunks, on_chunk=on_chunk)
            return self._scorer.evaluate(counted, temperature=temperature, num_seeds=num_seeds)

    def _run_on(
        self, pool: RolloutPool, published: PublishedPolicy, chunks: Sequence[EvaluationChunk], on_chunk: OnChunk
    ) -> list[Any]:
        results: dict[int, Any] = {}
        for index, result in pool.evaluate(chunks, published, partial(self._publish, published.version)):
            results[index] = result
            on_chunk(len(results), len(chunks))
        return [results[index] for index in range(len(chunks))]


def _held_out(evaluation: Evaluation) -> HeldOutPictures:
    assert evaluation.held_out is not None, "an evaluation of drawn pictures shows its first held-out images"
    return evaluation.held_out
