"""`scale`, `stop` and `status`: their options and what they print. What is heavy is imported when they run."""

import argparse
import json
import sys
from collections.abc import Callable
from typing import Any

from common.errors import UserError
from deploy.ray_environment import set_ray_environment
from deploy.status_text import show, status_text


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
    status.add_argument(
        "--watch",
        metavar="SECONDS",
        nargs="?",
        type=float,
        const=2.0,
        help="look again every so many seconds (2) until the run ends; in place on a terminal",
    )


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
    from deploy.control import status, statuses

    say = _json if arguments.json else status_text
    if arguments.watch is None:
        print(say(status(arguments.run_name)))
        return 0
    if arguments.watch <= 0:
        raise UserError(f"--watch is {arguments.watch:g}: give the seconds between two looks, above 0")
    for answer in statuses(arguments.run_name, arguments.watch):
        show(say(answer), sys.stdout)
    print(f"{arguments.run_name} has ended")
    return 0


def _json(status: dict[str, Any]) -> str:
    return json.dumps(status, indent=2)
