"""The judge actor: the Ray shell around whatever judges a picture by itself."""

import logging
import os
from dataclasses import replace
from typing import Any

import pyarrow as pa

from actors.evaluation.chunks import Unjudged
from actors.judging import Judging
from actors.pool_members import ActorDescription
from actors.scored_groups import UnjudgedGroups
from common.clock import StageClock
from common.config.recipe import Recipe
from common.log import set_up_logging
from common.machine import prepare_device
from common.paths import code_fingerprint
from common.ray_calls_group import RayCalls, ValueLostError
from common.types import GroupReceipt

log = logging.getLogger("vapi.actors")


class PicturesLostError(Exception):
    """No node has the pictures of a ticket or a chunk any more."""


class JudgeActor:
    """One incarnation of a judge actor; like a reward actor it is replaced, never restarted."""

    def __init__(self, recipe: Recipe, name: str, calls: RayCalls | None = None):
        set_up_logging(recipe.log.format, role=name)
        self._ray = calls or RayCalls()
        self._device = prepare_device(recipe.compute)
        self._judging = Judging(recipe, self._device)
        names = ", ".join(self._judging.terms)  # loaded before it is ready
        log.info("ready on %s, with %s", self._device, names)

    def describe(self) -> ActorDescription:
        return ActorDescription(self._ray.node_address(), os.getpid(), str(self._device), code_fingerprint())

    def judge(self, receipt: GroupReceipt, unjudged: list[Any]) -> tuple[GroupReceipt, pa.Table | None]:
        """Receipt and groups of a ticket that was rolled out, with the terms that it lacked.

        `unjudged` is a list with the reference to its UnjudgedGroups, which the driver owns, so that they outlive
        this actor; it is fetched here, and does not pass through the driver. Raises PicturesLostError if no node
        has it any more.
        """
        clock = StageClock(self._device)
        with clock("transfer"):
            groups: UnjudgedGroups = self._fetched(unjudged, f"ticket {receipt.ticket_id}")
        scored = self._judging.complete(groups, clock)
        seconds, num_pictures = sum(clock.seconds.values()), groups.num_pictures
        told = replace(receipt, awaits_judges=False, judge_seconds=seconds, num_pictures_judged=num_pictures)
        return scored.on(told)

    def judge_chunk(self, unjudged: list[Any]) -> Any:
        """The result of a chunk of an evaluation. `unjudged` and what is raised are as in `judge`."""
        chunk: Unjudged = self._fetched(unjudged, "a chunk")
        return chunk.complete(self._judging)

    def _fetched(self, unjudged: list[Any], whose: str) -> Any:
        try:
            return self._ray.get(unjudged[0])
        except ValueLostError as error:
            raise PicturesLostError(f"the pictures of {whose} were lost with a node") from error
