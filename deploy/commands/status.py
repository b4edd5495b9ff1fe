"""`status RUN`: the state of a running job, once or repeatedly."""

import argparse
import json
import sys
from typing import Any

from deploy.commands.arguments import add_run

HELP = "show the state of a running job"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run(parser)
    parser.add_argument("--json", action="store_true", help="print the state as JSON")
    parser.add_argument(
        "--watch",
        metavar="SECONDS",
        nargs="?",
        type=float,
        const=2.0,
        help="refresh every SECONDS (default 2) until the run ends; in place on a terminal",
    )


def run(arguments: argparse.Namespace) -> int:
    from common.errors import UserError
    from deploy.cluster.ray_environment import set_ray_environment
    from deploy.runs.status_text import show, status_text

    set_ray_environment()
    from deploy.service.control import status, statuses

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
