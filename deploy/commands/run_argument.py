"""What the commands share that look at a run or talk to it."""

import argparse


def add_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_name", metavar="RUN", help="a run folder; with RAY_ADDRESS set, the name of a run")
