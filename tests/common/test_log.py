"""Log lines as people and as machines read them."""

import json
import logging
import re
from collections.abc import Iterator

import pytest

from common.log import log_context, set_up_logging

log = logging.getLogger("vapi.driver")


@pytest.fixture(autouse=True)
def unchanged_logging() -> Iterator[None]:
    root = logging.getLogger("vapi")
    level, propagate, handlers = root.level, root.propagate, root.handlers[:]
    yield
    root.setLevel(level)
    root.propagate, root.handlers[:] = propagate, handlers
    log_context(role="driver", step=0)


def test_a_line_says_level_role_and_step(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging()
    log_context(step=12)
    log.warning("%d groups are stale", 3)
    line = capsys.readouterr().err
    assert re.fullmatch(r"\d\d:\d\d:\d\d WARNING driver step 12: 3 groups are stale\n", line)


def test_as_json_each_line_is_an_object(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging("json", role="actor-3")
    log_context(step=7)
    log.info('a "quoted" word\nand a second line')
    (line,) = capsys.readouterr().err.splitlines()
    said = json.loads(line)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+\+00:00", said.pop("time"))
    assert said == {
        "level": "INFO",
        "role": "actor-3",
        "step": 7,
        "logger": "vapi.driver",
        "message": 'a "quoted" word\nand a second line',
    }


def test_an_exception_is_part_of_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging("json")
    try:
        raise OSError("the disk is full")
    except OSError:
        log.exception("no checkpoint")
    (line,) = capsys.readouterr().err.splitlines()
    assert json.loads(line)["exception"].endswith("OSError: the disk is full")
