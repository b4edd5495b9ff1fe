"""`env`: this machine for a bug report."""

import argparse
import json

HELP = "show versions, GPUs and Ray for a bug report; no secrets"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print them as JSON")


def run(arguments: argparse.Namespace) -> int:
    from deploy.cluster.environment import environment

    found = environment()
    if arguments.json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
        return 0
    for subject, values in found.items():
        print(subject)
        for name, value in values.items():
            print(f"  {name:<34}{value}")
    return 0
