"""Reward actors that draw pictures: the same processes as in training, without its data and metric."""

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import ray

from actors.pool_events import Published
from actors.rollout_pool import RolloutPool
from common.config.recipe import Recipe
from deploy.cluster.ray_session import on_stop_signal, start_ray, stop_ray
from deploy.sampling.drawing import RunChunks

log = logging.getLogger("vapi.sample")

OWN_WEIGHTS = -1  # the version of an actor that has pulled none: those of the recipe's checkpoint


@contextmanager
def on_actors(recipe: Recipe, on_event: Callable[..., None]) -> Iterator[RunChunks]:
    """Start the recipe's actors; they are gone when the block ends."""
    with ExitStack() as cleanup:
        cleanup.callback(stop_ray)
        log.info("%s", start_ray(recipe))
        cleanup.callback(on_stop_signal(_interrupt))
        pool = RolloutPool(recipe, on_event, lambda: None)
        cleanup.callback(pool.shutdown)
        pool.start()
        log.info("waiting for %d actors", recipe.actors.count)
        pool.wait_ready(recipe.ray.placement_timeout_seconds)
        published = Published(OWN_WEIGHTS, ray.put(None))  # nothing to pull
        yield lambda chunks: pool.evaluate(chunks, published)


def _interrupt(_signal: int) -> None:
    raise KeyboardInterrupt
