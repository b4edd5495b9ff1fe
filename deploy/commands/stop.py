"""`stop RUN`: ends a running job gracefully."""

import argparse

from deploy.commands.arguments import add_run

HELP = "end a running job after its current step, with a checkpoint"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run(parser)


def run(arguments: argparse.Namespace) -> int:
    from deploy.cluster.ray_environment import set_ray_environment

    set_ray_environment()
    from deploy.service.control import stop

    print(stop(arguments.run_name))
    return 0
