"""`scale RUN actors=N` or `rewards=N`: changes a running job's number of reward actors or judge actors."""

import argparse

from deploy.commands.arguments import add_run

HELP = "change a running job's number of reward or judge actors"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run(parser)
    what = "the new number of reward actors, or of judge actors (reward.actors)"
    parser.add_argument("words", nargs=1, metavar="actors=N|rewards=N", help=what)


def run(arguments: argparse.Namespace) -> int:
    from deploy.cluster.ray_environment import set_ray_environment

    set_ray_environment()
    from deploy.service.control import scale

    print(scale(arguments.run_name, arguments.words[0]))
    return 0
