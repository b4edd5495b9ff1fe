"""Every kind of rollout by its name in a recipe."""

from collections.abc import Callable

from actors.rollouts.free_running import FreeRunning
from actors.rollouts.rollout import Rollout, RolloutSettings
from actors.rollouts.teacher_forced import TeacherForced
from common.protocols import ImageTokenizer

ROLLOUTS: dict[str, Callable[[RolloutSettings, ImageTokenizer], Rollout]] = {
    "teacher_forced": TeacherForced,
    "free_running": FreeRunning,
}
