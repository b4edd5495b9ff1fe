"""`scale`, `stop` and `status`: their options and what they print. What is heavy is imported when they run."""

import argparse
import json
from collections.abc import Callable
from typing import Any

from deploy.ray_environment import set_ray_environment


def add_control(commands) -> None:
    """Add the commands to the subparsers of `python -m deploy`."""

    def command(name: str, run: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        parser = commands.add_parser(name, help=text, description=text)
        parser.add_argument("run_name", metavar="RUN", help="a run folder; with RAY_ADDRESS set, a run's name")
        parser.set_defaults(run=run)
        return parser

    scale = command("scale", _scale, "change the number of reward actors of a running job")
    scale.add_argument("words", nargs=1, metavar="actors=N", help="reward actors to have")
    command("stop", _stop, "end a running job after its step, with a checkpoint")
    status = command("status", _status, "say how a running job does")
    status.add_argument("--json", action="store_true", help="print it as JSON")


def _scale(arguments: argparse.Namespace) -> int:
    set_ray_environment()
    from deploy.control import scale

    print(scale(arguments.run_name, arguments.words[0]))
    return 0


def _stop(arguments: argparse.Namespace) -> int:
    set_ray_environment()
    from deploy.control import stop

    print(stop(arguments.run_name))
    return 0


def _status(arguments: argparse.Namespace) -> int:
    set_ray_environment()
    from deploy.control import status

    answer = status(arguments.run_name)
    print(json.dumps(answer, indent=2) if arguments.json else status_text(answer))
    return 0


def status_text(status: dict[str, Any]) -> str:
    """The status for people to read."""
    if not status:
        return "starting: it has not begun to train"
    last = status["last_step"]
    lines = [f"step       {status['step']} of {status['num_steps']}, {status['groups_learned']} groups learned"]
    if last:
        rate = last["num_groups"] / last["step_seconds"]
        left = (status["num_steps"] - status["step"]) * last["step_seconds"]
        waits = last["wait_seconds"] / last["step_seconds"]
        lines += [
            f"last step  {last['step_seconds']:.1f} s, {rate:.1f} groups/s, learner waited {waits:.0%}, "
            f"{left / 60:.0f} min to go",
            f"           reward {last['reward_mean']:.4f}, cross-entropy {last['ce_prior']:.3f}, "
            f"staleness at most {last['staleness_max']}",
        ]
    lines.append(f"buffer     {status['groups_buffered']} groups")
    ready = sum(bool(node) for node in status["actors"].values())
    lines.append(
        f"actors     {ready} ready, {status['actors_wanted']} wanted, {status['actor_restarts']} restarts"
    )
    lines += [f"           {name}  {node or 'not ready'}" for name, node in status["actors"].items()]
    return "\n".join(lines)
