"""`scale`: what it asks of a driver, and what it refuses by the driver's status."""

from contextlib import contextmanager
from typing import Any

import pytest

from common.errors import ClusterError, RecipeError
from deploy.service import control

JUDGES = {"states": {}, "wanted": 1, "restarts": 0, "most": 20, "tickets_waiting": 0}
STATUS: dict[str, Any] = {"actors": {"actor-0": {}}, "actors_most": 16, "judges": JUDGES}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Requests to a driver with this status."""
    requests: list[dict[str, Any]] = []

    @contextmanager
    def connected(_run: str) -> Any:
        yield lambda method, *given: requests.append(*given) if method == "ask" else STATUS

    monkeypatch.setattr(control, "_connected", connected)
    return requests


@pytest.mark.parametrize(
    ("word", "request_made", "said"),
    [
        ("actors=2", {"scale": 2}, "asked for 2 reward actors"),
        ("rewards=1", {"scale_judges": 1}, "asked for 1 judge actor"),
        ("rewards=20", {"scale_judges": 20}, "asked for 20 judge actors"),
    ],
)
def test_either_number_is_asked_of_the_driver(asked, word: str, request_made: dict[str, int], said: str) -> None:
    assert control.scale("run", word) == said
    assert asked == [request_made]


@pytest.mark.parametrize(
    ("word", "changes", "words"),
    [
        ("rewards", {}, "scale takes actors=N or rewards=N with a number N, not 'rewards'"),
        ("ranks=2", {}, "scale takes actors=N or rewards=N"),
        ("rewards=-1", {}, "scale takes actors=N or rewards=N"),
        ("rewards=0", {}, "would leave nobody to judge pictures: ask for at least 1"),
        ("rewards=21", {}, "21 judge actors are far beyond the cluster of run: ask for at most 20"),
        ("rewards=2", {"judges": None}, "this run has no judge actors"),
        ("actors=0", {}, "would leave nobody to roll out"),
        ("actors=17", {}, "17 reward actors are far beyond the cluster of run: ask for at most 16"),
    ],
)
def test_what_cannot_be_is_refused_and_not_asked(
    asked, monkeypatch: pytest.MonkeyPatch, word: str, changes: dict[str, Any], words: str
) -> None:
    monkeypatch.setattr("tests.deploy.service.test_control.STATUS", STATUS | changes)
    with pytest.raises((RecipeError, ClusterError), match=words):
        control.scale("run", word)
    assert asked == []
