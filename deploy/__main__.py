"""`python -m deploy COMMAND`. Heavy imports are deferred until a command needs them, so that --help is quick."""

import argparse
import sys
from collections.abc import Sequence
from types import ModuleType

from deploy.commands import (
    ablate,
    check,
    convert,
    evaluate,
    init,
    local,
    monitor,
    plan,
    prepare,
    pretrain,
    replay,
    report,
    sample,
    scale,
    status,
    stop,
    train,
)
from deploy.commands.pipes import ending_with_its_reader

# Each is a module with HELP, add_arguments(parser) and run(arguments) -> exit code.
COMMANDS: dict[str, ModuleType] = {
    "train": train,
    "local": local,
    "check": check,
    "plan": plan,
    "sample": sample,
    "evaluate": evaluate,
    "init": init,
    "pretrain": pretrain,
    "replay": replay,
    "ablate": ablate,
    "scale": scale,
    "stop": stop,
    "status": status,
    "monitor": monitor,
    "report": report,
    "prepare": prepare,
    "convert": convert,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; 0 on success, 2 with one line on standard error for a mistake that the user can fix."""
    with ending_with_its_reader():
        return _run(_parse(argv))


def _run(arguments: argparse.Namespace) -> int:
    from common.atomic import storage_problem
    from common.errors import UserError
    from common.log import set_up_logging
    from deploy.cluster.stop_signals import StopAsked

    set_up_logging()
    try:
        return arguments.run(arguments)
    except UserError as error:
        for line in str(error).splitlines():
            print(f"error: {line}", file=sys.stderr)
        return 2
    except StopAsked as asked:
        return 128 + asked.number
    except OSError as error:
        problem = storage_problem(error)
        if problem is None:
            raise
        print(f"error: {problem}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Allow overrides before and after options: argparse ends a list of words at the first option."""
    parser = _parser()
    arguments, rest = parser.parse_known_args(argv)
    takes_overrides = "overrides" in arguments
    unknown = [word for word in rest if word.startswith("-") or not takes_overrides]
    if unknown:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    if takes_overrides:
        arguments.overrides += rest
    return arguments


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m deploy", description="VA-π post-training of autoregressive image generators on Ray."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        sub = commands.add_parser(name, help=command.HELP, description=command.HELP)
        command.add_arguments(sub)
        sub.set_defaults(run=command.run)
    return parser


if __name__ == "__main__":
    sys.exit(main())
