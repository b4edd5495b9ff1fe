"""A judge behind HTTP that is late, wrong, broken or silent. Letters: B images, G samples per image."""

import base64
import json
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from actors.rewards import http_judge
from actors.rewards.http_judge import HttpScores
from actors.rewards.term import Sources
from common.config.reward import HttpJudge
from common.errors import JudgeError

B, G = 2, 3
Answer = Callable[[BaseHTTPRequestHandler, list[np.ndarray], list[str]], None]
PICTURES = torch.linspace(-1, 1, B * G).view(B, G, 1, 1, 1).expand(-1, -1, 3, 4, 4)
SOURCES = Sources(torch.zeros(B, 3, 0, 0), {}, ("a", "b"), ("a red cat", "ein Fuß"))


class Judge:
    """A server whose answers a test decides; `asked` are the prompts of each request."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.answer: Answer = brightness
        self.is_over = threading.Event()
        judge = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                pictures = [np.asarray(Image.open(BytesIO(base64.b64decode(each)))) for each in request["images"]]
                judge.asked.append(request["prompts"])
                with suppress(BrokenPipeError, ConnectionResetError):
                    judge.answer(self, pictures, request["prompts"])

            def log_message(self, *_: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/score"


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch) -> Iterator[Judge]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(http_judge, "FIRST_PAUSE_SECONDS", 0.01)
    judge = Judge()
    thread = threading.Thread(target=judge.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield judge
    judge.is_over.set()
    judge.server.shutdown()
    thread.join()
    judge.server.server_close()


def reply(handler: BaseHTTPRequestHandler, content: Any, status: int = 200) -> None:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


def brightness(handler: BaseHTTPRequestHandler, pictures: list[np.ndarray], prompts: list[str]) -> None:
    assert all(picture.shape == (4, 4, 3) for picture in pictures)
    reply(handler, {"scores": [float(picture.mean()) for picture in pictures]})


def measured(judge: Judge, **section: Any) -> torch.Tensor:
    return HttpScores(HttpJudge(url=judge.url, **section)).measure(PICTURES, SOURCES)


def num_missed(judge: Judge, **section: Any) -> int:
    return int(measured(judge, **section).isnan().sum())


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_every_picture_gets_the_score_of_itself_under_its_own_prompt(judge: Judge, batch_size: int) -> None:
    scores_BG = measured(judge, batch_size=batch_size)
    expected = [[float(round(255 * place / 5)) for place in range(3 * image, 3 * image + 3)] for image in range(B)]
    assert scores_BG.tolist() == pytest.approx(np.array(expected), abs=1)
    assert sorted(prompt for prompts in judge.asked for prompt in prompts) == ["a red cat"] * 3 + ["ein Fuß"] * 3
    assert len(judge.asked) == math.ceil(6 / batch_size)


def test_a_bare_list_is_an_answer_too(judge: Judge) -> None:
    judge.answer = lambda handler, pictures, _: reply(handler, [1.5] * len(pictures))
    assert measured(judge).eq(1.5).all()


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_status_that_may_pass_is_tried_again(judge: Judge, status: int) -> None:
    def recovers(handler: BaseHTTPRequestHandler, pictures: list[np.ndarray], prompts: list[str]) -> None:
        reply(handler, {}, status) if len(judge.asked) < 3 else brightness(handler, pictures, prompts)

    judge.answer = recovers
    assert num_missed(judge) == 0
    assert len(judge.asked) == 3
    judge.asked.clear()
    assert num_missed(judge, retries=1) == 6
    assert len(judge.asked) == 2


def test_a_status_that_will_not_pass_is_not_tried_again(judge: Judge) -> None:
    judge.answer = lambda handler, *_: reply(handler, {}, 404)
    assert num_missed(judge, retries=5) == 6
    assert len(judge.asked) == 1


@pytest.mark.parametrize(
    "answer",
    [{"scores": [1.0] * 5}, {"scores": [1.0] * 7}, {"scores": 3}, {}, [], 1, "scores", b"not json", b""],
    ids=repr,
)
def test_the_wrong_number_of_scores_is_no_score(judge: Judge, answer: Any) -> None:
    judge.answer = lambda handler, *_: reply(handler, answer)
    assert num_missed(judge, retries=1) == 6
    assert len(judge.asked) == 2


def test_a_picture_that_the_judge_gives_no_number_is_missed_alone(judge: Judge) -> None:
    judge.answer = lambda handler, *_: reply(handler, b'{"scores": [1, null, NaN, "2", true, -3.5]}')
    scores_BG = measured(judge)
    assert scores_BG.isnan().tolist() == [[False, True, True], [True, True, False]]
    assert (scores_BG[0, 0], scores_BG[1, 2]) == (1, -3.5)
    assert len(judge.asked) == 1


def test_a_judge_that_hangs_or_dribbles_is_given_up_after_the_timeout(judge: Judge) -> None:
    def dribbles(handler: BaseHTTPRequestHandler, *_: Any) -> None:
        handler.send_response(200)
        handler.end_headers()
        while not judge.is_over.wait(0.05):
            handler.wfile.write(b" ")

    for silent in (lambda *_: judge.is_over.wait(), dribbles):
        judge.answer = silent
        start = time.monotonic()
        assert num_missed(judge, timeout_seconds=0.3, retries=1) == 6
        assert time.monotonic() - start < 10


def test_a_slow_judge_is_waited_for_and_asked_at_once(judge: Judge) -> None:
    def slow(handler: BaseHTTPRequestHandler, pictures: list[np.ndarray], prompts: list[str]) -> None:
        time.sleep(0.5)
        brightness(handler, pictures, prompts)

    judge.answer = slow
    start = time.monotonic()
    assert num_missed(judge, batch_size=1, concurrency=6, timeout_seconds=30) == 0
    assert time.monotonic() - start < 6 * 0.5


def test_a_judge_that_is_not_there_scores_nothing_or_ends_the_run_by_name(judge: Judge) -> None:
    url = "http://127.0.0.1:9/score"  # nobody listens there
    section = HttpJudge(url=url, retries=0)
    assert HttpScores(section).measure(PICTURES, SOURCES).isnan().all()
    with pytest.raises(JudgeError, match=r"reward\.http: http://127\S+/score gave no score for 6 pictures"):
        HttpScores(section.model_copy(update={"on_failure": "stop"})).measure(PICTURES, SOURCES)
