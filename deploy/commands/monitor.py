"""`monitor [RUN]`: a Prometheus for a running job."""

import argparse

HELP = "show a running job in Prometheus, on loopback"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_name", metavar="RUN", nargs="?", help="a run folder (default: the newest in runs/)")
    parser.add_argument("--port", type=int, default=9090, help="Prometheus's own port (default 9090)")
    parser.add_argument("--data", metavar="FOLDER", default="runs/.prometheus", help="folder for its data")


def run(arguments: argparse.Namespace) -> int:
    from deploy.monitoring.monitor import monitor

    return monitor(arguments.run_name, arguments.port, arguments.data)
