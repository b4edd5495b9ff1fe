"""Actors that draw pictures: the same processes as in training, without its data and metric."""

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from actors.pool_events import PublishedPolicy
from actors.rollout_actor import ActorJob
from actors.rollout_pool import RolloutPool
from common.config.recipe import Recipe
from common.facts import Fact
from common.ray_calls_group import RayCalls
from deploy.cluster.ray_session import RaySession, on_stop_signal
from deploy.sampling.drawing import RunChunks

log = logging.getLogger("vapi.sample")

OWN_WEIGHTS = 0  # the version of what an actor begins with


@contextmanager
def on_actors(recipe: Recipe, tell: Callable[[Fact], None], job: ActorJob) -> Iterator[RunChunks]:
    """Start the recipe's actors; they are gone when the block ends."""
    with ExitStack() as cleanup:
        session, ray = RaySession(), RayCalls()
        cleanup.callback(session.close)
        log.info("%s", session.open(recipe))
        cleanup.callback(on_stop_signal(_interrupt))
        pool = RolloutPool(recipe, tell, lambda: None, ray, job=job)
        cleanup.callback(pool.shutdown)
        pool.resize(recipe.actors.count)
        log.info("waiting for %d actors", recipe.actors.count)
        pool.wait_ready(recipe.ray.placement_timeout_seconds)
        published = PublishedPolicy(OWN_WEIGHTS, ray.put(None))  # nothing to load
        yield lambda chunks: pool.evaluate(chunks, published)


def _interrupt(_signal: int) -> None:
    raise KeyboardInterrupt
