"""`report RUN`: one HTML page."""

import argparse

HELP = "write one HTML page about a run: scores, pictures, curves"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_name", metavar="RUN", help="a run folder, running or ended")
    parser.add_argument("--out", metavar="FILE.html", help="output file (default: report.html in the folder)")


def run(arguments: argparse.Namespace) -> int:
    from deploy.reporting.report import write_report

    print(f"wrote {write_report(arguments.run_name, arguments.out)}")
    return 0
