"""Mistakes that a user can fix. Each message gives the value seen, the value needed and what to change.

Commands print such a message as one line and exit with code 2; other exceptions are bugs and show a traceback.
"""


class UserError(ValueError):
    """Base of every error that a recipe, a file or a machine can cause."""


class RecipeError(UserError):
    """A recipe that cannot be run: unknown key, impossible value, settings that contradict each other."""


class CheckpointError(UserError):
    """A weights file or run checkpoint that is missing, incomplete or does not fit the model."""


class DataError(UserError):
    """A data set that cannot be read, or that contains nothing to learn from."""


class BrokenImageError(DataError):
    """One image that cannot be decoded. Rollouts skip it, count it and go on."""

    def __init__(self, image_id: str, reason: str):
        super().__init__(f"{image_id} is not a readable image: {reason}")
        self.image_id = image_id
        self.reason = reason


class RewardError(DataError):
    """A term of the reward that fails, or gives what is not a number per sample."""


class JudgeError(UserError):
    """A judge behind HTTP without an answer, in a run that is not to go on without."""


class ClusterError(UserError):
    """The cluster cannot give what the recipe asks for."""


class LearnerLostError(ClusterError):
    """Every learner rank died: what they learned since the newest checkpoint is lost."""


class DivergedError(UserError):
    """Training became non-finite and did not recover by itself."""


def first_line(error: Exception) -> str:
    """An error's message without the traces that Ray appends."""
    return str(error).partition("\n")[0]
