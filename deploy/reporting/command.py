"""`report`: its options. What is heavy is imported when it runs."""

import argparse


def add_report(commands) -> None:
    """Add the command to the subparsers of `python -m deploy`."""
    text = "write one HTML page about a run: scores, pictures, curves, events, recipe"
    parser = commands.add_parser("report", help=text, description=text)
    parser.add_argument("run_name", metavar="RUN", help="a run folder, running or ended")
    parser.add_argument(
        "--out", metavar="FILE.html", help="where to write it (default: report.html in the folder)"
    )
    parser.set_defaults(run=_report)


def _report(arguments: argparse.Namespace) -> int:
    from deploy.reporting.report import write_report

    print(f"wrote {write_report(arguments.run_name, arguments.out)}")
    return 0
