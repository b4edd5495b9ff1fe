"""`evaluate`: a generator's scores, computed in this process."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from actors.evaluation.geneval.colours import Colours
from actors.evaluation.geneval.detector import load_detector
from actors.evaluation.picture_files import find_pictures
from actors.evaluation.pictures import free_running_panel, held_out_panels, save_panels
from actors.rewards.preference import RewardModels
from common.atomic import write_json
from common.config.recipe import Recipe
from common.config.reward_models import Preference
from common.errors import RecipeError
from common.machine import prepare_device
from common.models.loading import load_policy
from deploy.runs.progress_line import ProgressLine, chunks_text, progress_stream
from deploy.scoring.geneval import GenEvalResult, find_geneval, judged
from deploy.scoring.prompted_pictures import find_prompted
from deploy.scoring.prompted_scores import PromptedScores, score_prompted
from deploy.scoring.scorer import Evaluation, Scorer, in_process


def evaluate(recipe: Recipe, checkpoint: str | None = None, pictures: str | None = None) -> Evaluation:
    """The scores of the recipe's generator, or of the weights at `checkpoint`. Raises UserError.

    `pictures` is a folder or `.npz` of free-running pictures to score instead of drawing new ones.
    """
    problem = recipe.evaluation.problem(recipe.policy.conditioning)
    if problem:
        raise RecipeError(problem)
    files = find_pictures(Path(pictures)) if pictures else None
    device = prepare_device(recipe.compute)
    policy, scorer = load_policy(recipe, device, checkpoint), Scorer(recipe)
    with closing(ProgressLine(progress_stream(recipe.log))) as line:

        def on_chunk(num_done: int, num_chunks: int) -> None:
            line.show(chunks_text("the generator", num_done, num_chunks, line.seconds))

        run_chunks = in_process(recipe, policy, device, on_chunk)
        if files is not None:
            result = scorer.evaluate_files(run_chunks, files, device)
        else:
            (result,) = scorer.evaluate(run_chunks, temperature=recipe.sampling.temperature, num_seeds=1)
    return result


def evaluate_prompted(
    recipe: Recipe, names: Sequence[Preference], pictures: str, prompts: str | None
) -> PromptedScores:
    """Preference scores of a folder of pictures and their prompts. Raises UserError."""
    found = find_prompted(Path(pictures), Path(prompts) if prompts else None)
    device = prepare_device(recipe.compute)
    with closing(ProgressLine(progress_stream(recipe.log))) as line:

        def on_pictures(num_done: int) -> None:
            line.show(chunks_text("pictures", num_done, len(found), line.seconds))

        return score_prompted(recipe, names, found, device, on_pictures)


def evaluate_geneval(recipe: Recipe, folder: str) -> GenEvalResult:
    """GenEval's tasks over a folder in its layout. Raises UserError."""
    pictures = find_geneval(Path(folder))
    device = prepare_device(recipe.compute)
    detector = load_detector(recipe.reward_models.detector, device)
    clip = RewardModels(recipe, device).clip
    colours, verdicts = Colours(clip), []
    with closing(ProgressLine(progress_stream(recipe.log))) as line:
        for picture in pictures:
            verdicts.append(judged(picture, detector, colours))
            line.show(chunks_text("pictures", len(verdicts), len(pictures), line.seconds))
    return GenEvalResult(pictures, verdicts, detector.name, clip.name)


def write_files(result: Evaluation, out: str | None, grid: str | None) -> list[Path]:
    """Write the scores as JSON to `out` if given, and a PNG of source, reconstruction, teacher-forced and
    free-running samples to `grid`, or beside `out`. Returns the paths.
    """
    paths = []
    if out:
        paths.append(Path(out))
        write_json(paths[0], result.scores)
    picture = Path(grid) if grid else Path(out).with_suffix(".png") if out else None
    if picture is not None:
        assert result.held_out is not None, "the scorer asks for pictures"
        rows = len(result.held_out.source_NHWC)
        panels = [*held_out_panels(result.held_out), free_running_panel(result.pictures_NHWC, rows, result.names)]
        save_panels(picture, panels)
        paths.append(picture)
    return paths
