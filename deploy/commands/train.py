"""`train RECIPE`: the service."""

import argparse
import time

from deploy.commands.arguments import add_recipe, recipe_for_ray

HELP = "post-train through the Ray service: reward actors and a learner"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_recipe(parser)


def run(arguments: argparse.Namespace) -> int:
    from deploy.cluster.stop_signals import StopSignals

    stop = StopSignals()
    with stop.installed():
        recipe = recipe_for_ray(arguments)
        from deploy.cluster.probe import require_cluster

        require_cluster()  # before PyTorch is imported, which takes seconds
        from deploy.cluster.local_machine import require_local
        from deploy.reporting.report import report_line
        from deploy.runs.summary_text import summary_text
        from deploy.service.driver import Parts, train

        require_local(recipe)
        began = time.monotonic()
        outcome = train(recipe, Parts(stop=stop))
        folder = outcome.folder.path
        print(summary_text(recipe, outcome.summary, folder, time.monotonic() - began))
        print(report_line(folder))
    return 128 + outcome.stop_signal if outcome.stop_signal is not None else 0
