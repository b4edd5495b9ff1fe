"""`replay RUN`: learn again from the groups that a run recorded."""

import argparse

HELP = "learn again from the groups that a run has recorded"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Learn again from the groups of a run that was trained with record.groups=true; no actors, no Ray."
    )
    parser.add_argument("run_name", metavar="RUN", help="a run folder with recorded groups")
    parser.add_argument(
        "overrides",
        nargs="*",
        default=[],
        metavar="key=value",
        help="other settings of the learner, as in learner.clip_range=0.1",
    )


def run(arguments: argparse.Namespace) -> int:
    from deploy.runs.replay import replay

    done = replay(arguments.run_name, arguments.overrides)
    print(f"{done.steps} steps replayed; run folder {done.folder.path}")
    if done.largest_difference is not None:
        print(f"largest difference of a loss to the run's: {done.largest_difference:.2g}, in step {done.at_step}")
    return 0
