"""The text of a study's pages; every number comes from the study and its finished cells."""

import json

from deploy.ablation.score_table import ScoreTable
from deploy.ablation.study import SAMPLED, Study

MARKS = {"gain": " ▲", "loss": " ▼", "": ""}
NOISE = "noise floor"


def command(study: Study) -> str:
    """The command that runs the study."""
    return " ".join(["python -m deploy ablate", study.section.name, *study.overrides])


def setting(study: Study) -> str:
    """What all variants have in common."""
    recipe, learner = study.recipe, study.recipe.learner
    return (
        f"Recipe {study.section.recipe}: {learner.num_steps} steps of {learner.images_per_step} images, "
        f"{recipe.group.size} samples an image, learning rate {learner.lr:g}, unless a variant says otherwise; "
        f"scored on {recipe.evaluation.num_samples:,} free-running pictures and "
        f"{recipe.evaluation.num_held_out:,} held-out images."
    )


def progress(study: Study, table: ScoreTable) -> str:
    done = [str(row.num_seeds) for row in table.rows]
    seeds = done[0] if len(set(done)) == 1 else f"{min(done, key=int)} to {max(done, key=int)}"
    return (
        f"{sum(map(int, done))} of {len(study.cells)} cells are finished: {seeds} of "
        f"{len(study.section.seeds)} seeds a variant."
    )


def reading(table: ScoreTable) -> str:
    """How to read the table."""
    if not table.base:
        return "Mean ± standard deviation over seeds. The base is not scored yet."
    return (
        "Mean ± standard deviation over seeds; a number alone where one seed is finished. The base is the "
        f"generator before training under {table.num_base_seeds} sampling seeds, and the noise floor is the "
        "largest minus the smallest of its scores: what another draw of pictures and samples alone changes. "
        "▲ is better and ▼ worse than the base under the same sampling seeds, by more than the noise floor and by "
        "more than the standard deviation of the difference over seeds; one seed alone has no mark."
    )


def last_step_reading() -> str:
    return (
        "The own reward is weighted as the variant has it, so that it compares along a variant only. Seconds are "
        "those of the training, on a machine that may have had other work."
    )


def changes(study: Study, variant: str) -> str:
    """A variant's settings, as overrides."""
    own = study.section.variants[variant]
    if SAMPLED in own:
        keys = [f"sampling.{key}={json.dumps(value)}" for key, value in own[SAMPLED].items()]
        return " ".join(["the base, untrained:", *keys])
    return " ".join(f"{key}={json.dumps(value)}" for key, value in own.items()) or "as the recipe"
