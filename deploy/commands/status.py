"""`status [RUN]`: the state of a run, once or repeatedly; without a run, the list of those in runs/."""

import argparse
import json
import sys
from typing import Any

HELP = "show the state of a run, or list the runs in runs/"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "run_name",
        metavar="RUN",
        nargs="?",
        help="a run folder; or a run's name, if RAY_ADDRESS is set (default: list the runs in runs/)",
    )
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

    name, every = arguments.run_name, arguments.watch
    if every is not None and not every > 0:
        raise UserError(f"--watch is {every:g}: give the seconds between two looks, above 0")
    if every is not None and name is None:
        raise UserError("--watch is given without a run: name one, such as runs/emoji")
    if name is None:
        return _list(arguments.json)
    from deploy.cluster.ray_environment import set_ray_environment
    from deploy.runs.status_text import show

    set_ray_environment()
    from deploy.service.control import status, statuses

    say = _json if arguments.json else _text
    if every is None:
        print(say(status(name)))
        return 0
    for answer in statuses(name, every):
        show(say(answer), sys.stdout)
    print(f"{name} has ended")
    return 0


def _list(as_json: bool) -> int:
    from deploy.runs.standing import standings
    from deploy.runs.standing_text import standings_text

    found = standings()
    print(json.dumps(found, indent=2) if as_json else standings_text(found, "runs/"))
    return 0


def _text(status: dict[str, Any]) -> str:
    """Of a run that answers, or of one that does not."""
    from deploy.runs.standing_text import standing_text
    from deploy.runs.status_text import status_text

    return standing_text(status) if "folder" in status else status_text(status)


def _json(status: dict[str, Any]) -> str:
    return json.dumps(status, indent=2)
