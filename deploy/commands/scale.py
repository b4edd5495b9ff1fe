"""`scale RUN actors=N`: another number of reward actors for a running job."""

import argparse

from deploy.commands.arguments import add_run

HELP = "change the number of reward actors of a running job"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run(parser)
    parser.add_argument("words", nargs=1, metavar="actors=N", help="reward actors to have")


def run(arguments: argparse.Namespace) -> int:
    from deploy.cluster.ray_environment import set_ray_environment

    set_ray_environment()
    from deploy.service.control import scale

    print(scale(arguments.run_name, arguments.words[0]))
    return 0
