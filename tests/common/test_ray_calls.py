"""The port over Ray: why an actor is dead, in a line. The rest of it is for tests that start a cluster."""

import pytest
import ray
from ray.exceptions import ActorDiedError, RayActorError, RayTaskError

from common.errors import DataError
from common.ray_calls_group import ProcessLostError, RayCalls

TRACEBACK = "ray::Actor.__init__() (pid=7, ip=10.0.0.1)\n  self._read()\ncommon.errors.DataError: no such file\n"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ActorDiedError(), "The actor died unexpectedly before finishing this task."),
        (RayActorError("1f", "The node is gone.\nIts address was 10.0.0.1."), "The node is gone."),
        (
            ActorDiedError(RayTaskError("__init__", TRACEBACK, DataError("no such file"))),
            "common.errors.DataError: no such file",
        ),
    ],
)
def test_a_lost_actor_is_told_of_by_its_death_or_by_what_its_constructor_raised(
    monkeypatch, error: RayActorError, said: str
) -> None:
    def get(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(ray, "get", get)
    with pytest.raises(ProcessLostError) as raised:
        RayCalls().get("reference")
    assert str(raised.value) == said
