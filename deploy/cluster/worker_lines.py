"""What a run's actors and ranks write, on whatever node: Ray hands it on to the driver, line by line."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ray._private.ray_logging import global_worker_stdstream_dispatcher

_NAME = "vapi"


@contextmanager
def worker_lines_to(write: Callable[[str, str], None]) -> Iterator[None]:
    """During the block, call `write` with each line and its writer, such as "RolloutActor 12 on 10.0.0.1"."""

    def hand_on(batch: dict[str, Any]) -> None:
        if batch["pid"] == "autoscaler":  # its report of the cluster, every five seconds
            return
        who = f"{batch.get('actor_name') or batch.get('task_name') or 'worker'} {batch['pid']} on {batch['ip']}"
        for line in batch["lines"]:
            write(line, who)

    global_worker_stdstream_dispatcher.add_handler(_NAME, hand_on)
    try:
        yield
    finally:
        global_worker_stdstream_dispatcher.remove_handler(_NAME)
