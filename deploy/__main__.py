"""`python -m deploy COMMAND`. Heavy imports are deferred until a command needs them, so that --help is quick."""

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from types import ModuleType
from typing import NoReturn

from common.paths import CHECKOUT
from deploy.commands import (
    ablate,
    check,
    convert,
    env,
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

PROGRAM = "python -m deploy"

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
    "env": env,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; 0 on success, 2 with one line on standard error for a mistake that the user can fix."""
    with ending_with_its_reader():
        return _run(_parse(argv))


def _run(arguments: argparse.Namespace) -> int:
    try:
        return _answer(arguments)
    except ModuleNotFoundError as error:
        if (CHECKOUT / str(error.name).partition(".")[0]).exists():  # of our own: a mistake here
            raise
        print(
            f"error: the package {error.name} is not installed for {sys.executable}: use .venv/bin/python, which "
            "`make install` sets up",
            file=sys.stderr,
        )
        return 2


def _answer(arguments: argparse.Namespace) -> int:
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
    words = list(sys.argv[1:] if argv is None else argv)
    parser = _parser()
    if not words or words[0] == "help":
        words = [*words[1:2], "--help"]
    if not words[0].startswith("-") and words[0] not in COMMANDS:
        parser.error(
            f"there is no command {words[0]}: {_near(words[0], COMMANDS)}`python -m deploy` lists them all"
        )
    arguments, rest = parser.parse_known_args(words)
    takes_overrides = "overrides" in arguments
    unknown = [word for word in rest if word.startswith("-") or not takes_overrides]
    if unknown:
        arguments.refuse(unknown)
    if takes_overrides:
        arguments.overrides = [*arguments.overrides, *rest]
    return arguments


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        usage=f"{PROGRAM} [--help] [--version] COMMAND …",
        description="VA-π post-training of autoregressive image generators on Ray.",
        epilog="`python -m deploy COMMAND --help` says what a command takes.",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show this checkout's version and exit")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", title="commands", prog=PROGRAM)
    for name, command in COMMANDS.items():
        sub = commands.add_parser(name, help=command.HELP, description=command.HELP)
        command.add_arguments(sub)
        sub.set_defaults(run=command.run, refuse=_refusing(sub))
    return parser


def _refusing(parser: argparse.ArgumentParser) -> Callable[[list[str]], NoReturn]:
    def refuse(unknown: list[str]) -> NoReturn:
        """End with code 2 and the usage: the command knows no such words."""
        options = [option for option in vars(parser)["_option_string_actions"] if option.startswith("--")]
        near = _near(unknown[0].partition("=")[0], options)
        parser.error(f"unrecognized arguments: {' '.join(unknown)}{f' ({near.rstrip()})' if near else ''}")

    return refuse


def _near(word: str, known: Iterable[str]) -> str:
    near = get_close_matches(word.lower(), list(known), n=1)
    return f"did you mean {near[0]}? " if near else ""


class _Version(argparse.Action):
    """Reads files only where somebody asks."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        from deploy.cluster.environment import version

        print(version())
        parser.exit()


if __name__ == "__main__":
    sys.exit(main())
