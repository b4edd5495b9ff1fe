"""The mailbox of a running driver: requests come in order and once, the status goes out about once a second."""

from typing import Any

import pytest

from common.errors import ClusterError
from deploy.service.control_actor import ControlActor, ControlLink, control_name
from tests.fakes import FakeRay


@pytest.fixture
def ray() -> FakeRay:
    ray = FakeRay()
    ray.now = 100.0
    return ray


def exchanged(link: ControlLink, ray: FakeRay, seconds: float, status: dict[str, Any]) -> list[dict[str, Any]]:
    """What has come by `seconds` later."""
    ray.now += seconds
    return link.exchange(lambda: status)


def test_requests_are_handed_out_in_order_and_once() -> None:
    actor = ControlActor()
    assert actor.status() == {}
    actor.ask({"scale": 2})
    actor.ask({"stop": True})
    assert actor.exchange({"step": 1}) == [{"scale": 2}, {"stop": True}]
    assert actor.exchange({"step": 2}) == []
    assert actor.status() == {"step": 2}


def test_the_driver_has_what_was_asked_at_its_next_look_and_gives_its_status_once_a_second(ray: FakeRay) -> None:
    link = ControlLink("run", ray)
    (actor,) = ray.actors
    assert actor.options == {
        "name": "control:run", "namespace": "vapi", "num_cpus": 0, "max_restarts": -1
    }  # fmt: skip
    actor.ask.remote({"scale": 2})
    assert exchanged(link, ray, 0.0, {"step": 1}) == []
    assert exchanged(link, ray, 0.1, {"step": 2}) == [{"scale": 2}]
    assert exchanged(link, ray, 0.1, {"step": 3}) == []
    assert actor.self.status() == {"step": 1}
    exchanged(link, ray, 1.0, {"step": 4})
    assert actor.self.status() == {"step": 4}


def test_a_mailbox_that_is_lost_is_no_error_of_the_run(ray: FakeRay) -> None:
    link = ControlLink("run", ray)
    ray.bury(ray.actors[0], "its node went down")
    assert [exchanged(link, ray, 2.0, {"step": 1}) for _ in range(3)] == [[], [], []]


def test_a_name_that_is_taken_says_how_to_get_another(ray: FakeRay) -> None:
    ray.start(ControlActor, name=control_name("run"))
    with pytest.raises(ClusterError, match=r"a run named run is at work .* \(python -m deploy stop run\)"):
        ControlLink("run", ray)


def test_outside_the_loop_a_stop_is_heard_and_other_requests_are_kept(ray: FakeRay) -> None:
    link = ControlLink("run", ray)
    (actor,) = ray.actors
    actor.ask.remote({"scale": 2})
    assert not link.stop_is_asked(lambda: {"phase": "loading"})
    ray.now += 2.0
    assert not link.stop_is_asked(lambda: {"phase": "loading"})
    assert actor.self.status() == {"phase": "loading"}
    assert link.exchange(lambda: {}) == [{"scale": 2}]
    actor.ask.remote({"stop": True})
    ray.now += 2.0
    assert [link.stop_is_asked(lambda: {}) for _ in range(2)][-1]
