"""A judge behind HTTP: decoded pictures go as PNGs with their prompts, and numbers come back.

A picture that gets no number is NaN here: what that means is decided by who asks. Letters: B images, G samples per
image, C, H, W of a picture.
"""

import base64
import json
import logging
import math
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from io import BytesIO
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import torch
from PIL import Image
from torch import Tensor

from actors.image_batch import to_uint8
from actors.rewards.term import Sources
from common.config.reward import HttpJudge
from common.errors import JudgeError, first_line

log = logging.getLogger("vapi.actors")

FIRST_PAUSE_SECONDS = 0.25  # before a request is made again; then twice as long each time
LARGEST_ANSWER = 1 << 20  # bytes
TRIED_AGAIN = (408, 429)  # statuses below 500 that may pass


class _AnswerError(Exception):
    """No usable answer; `may_pass` where another try may get one."""

    def __init__(self, reason: str, may_pass: bool = True):
        super().__init__(reason)
        self.may_pass = may_pass


class HttpScores:
    higher_is_better = True
    may_miss = True  # NaN is a picture without a score
    stage = "score"

    def __init__(self, section: HttpJudge):
        self._section = section
        self._requests = ThreadPoolExecutor(section.concurrency, thread_name_prefix="judge")

    def measure(self, decoded_BGCHW: Tensor, sources: Sources) -> Tensor:
        """Raises JudgeError where a picture gets no score and the recipe says stop."""
        B, G = decoded_BGCHW.shape[:2]
        pictures = [_png(each) for each in to_uint8(decoded_BGCHW.flatten(0, 1))]
        texts = sources.texts or ("",) * B
        prompts = [texts[image] for image in range(B) for _ in range(G)]
        size = self._section.batch_size
        starts = range(0, B * G, size)
        asked = self._requests.map(
            self._scores, (pictures[i : i + size] for i in starts), (prompts[i : i + size] for i in starts)
        )
        scores = [score for answer in asked for score in answer]
        return torch.tensor(scores, dtype=torch.float32, device=decoded_BGCHW.device).view(B, G)

    def _scores(self, pictures: Sequence[str], prompts: Sequence[str]) -> list[float]:
        body = json.dumps({"images": pictures, "prompts": prompts}).encode()
        for attempt in range(self._section.retries + 1):
            if attempt:
                time.sleep(FIRST_PAUSE_SECONDS * 2 ** (attempt - 1))
            try:
                return self._checked(
                    _posted(self._section.url, body, self._section.timeout_seconds), len(pictures)
                )
            except _AnswerError as error:
                failure = error
                if not error.may_pass:
                    break
        return self._missed(len(pictures), str(failure))

    def _checked(self, answer: Any, num_pictures: int) -> list[float]:
        scores = answer.get("scores") if isinstance(answer, dict) else answer
        if not isinstance(scores, list) or len(scores) != num_pictures:
            seen = f"{len(scores)} scores" if isinstance(scores, list) else "no list of scores"
            raise _AnswerError(f"{seen} for {num_pictures} pictures")
        numbers = [_number(score) for score in scores]
        if missed := sum(map(math.isnan, numbers)):
            self._missed(missed, "no number in the place of a score")
        return numbers

    def _missed(self, num_pictures: int, reason: str) -> list[float]:
        what = f"reward.http: {self._section.url} gave no score for {num_pictures} pictures: {reason}"
        if self._section.on_failure == "stop":
            raise JudgeError(f"{what}; mend the judge, or set reward.http.on_failure=drop")
        log.warning("%s", what)
        return [math.nan] * num_pictures


def _posted(url: str, body: bytes, timeout_seconds: float) -> Any:
    """The answer's JSON. Raises _AnswerError."""
    request = Request(url, body, {"Content-Type": "application/json", "Accept": "application/json"})
    try:
        return json.loads(_content(request, timeout_seconds))
    except HTTPError as error:
        error.close()
        raise _AnswerError(f"status {error.code}", error.code >= 500 or error.code in TRIED_AGAIN) from None
    except (OSError, HTTPException) as error:  # TimeoutError is an OSError, and so is URLError
        reason = getattr(error, "reason", error)
        if isinstance(reason, TimeoutError):
            raise _AnswerError(f"no answer within {timeout_seconds:g} s") from None
        raise _AnswerError(first_line(error) or type(error).__name__) from None
    except (ValueError, RecursionError):
        raise _AnswerError("an answer that is not JSON") from None


def _content(request: Request, timeout_seconds: float) -> bytes:
    """TimeoutError where a byte, or the last one, comes later than the timeout."""
    deadline, content = time.monotonic() + timeout_seconds, b""
    with urlopen(request, timeout=timeout_seconds) as response:
        while part := response.read1(1 << 16):
            content += part
            if time.monotonic() > deadline:
                raise TimeoutError
            if len(content) > LARGEST_ANSWER:
                raise _AnswerError(f"an answer of more than {LARGEST_ANSWER} bytes")
    return content


def _number(score: Any) -> float:
    is_number = isinstance(score, int | float) and not isinstance(score, bool) and math.isfinite(score)
    return float(score) if is_number else math.nan


def _png(pixels_HWC: Any) -> str:
    file = BytesIO()
    Image.fromarray(pixels_HWC).save(file, "PNG", compress_level=1)
    return base64.b64encode(file.getvalue()).decode()
