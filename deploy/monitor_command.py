"""`monitor`: its options."""

import argparse


def add_monitor(commands) -> None:
    """Add the command to the subparsers of `python -m deploy`."""
    text = "show a running job in Prometheus, on loopback"
    parser = commands.add_parser("monitor", help=text, description=text)
    parser.add_argument("run_name", metavar="RUN", nargs="?", help="a run folder (default: the newest in runs/)")
    parser.add_argument("--port", type=int, default=9090, help="Prometheus's own port (default 9090)")
    parser.add_argument("--data", metavar="FOLDER", default="runs/.prometheus", help="where it keeps its data")
    parser.set_defaults(run=_monitor)


def _monitor(arguments: argparse.Namespace) -> int:
    from deploy.monitor import monitor

    return monitor(arguments.run_name, arguments.port, arguments.data)
