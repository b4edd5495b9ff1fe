"""Output that nobody reads any more ends a command without a word."""

import subprocess
import sys
from pathlib import Path

import pytest

from common.paths import CHECKOUT

PROGRAM = """
import sys
from deploy import __main__ as deploy
def run(arguments):
    {body}
    return 0
deploy.COMMANDS["report"].run = run
sys.argv[1:] = ["report", "x"]
sys.exit(deploy.main())
"""


def piped(body: str, *, both: bool) -> tuple[int, str]:
    """Code and standard error of a command that does `body`, whose output's reader goes at the first line."""
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(body=body)],
        cwd=CHECKOUT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT if both else subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        assert process.stdin
        assert process.stdout.readline() == "first\n"
        process.stdout.close()
        process.stdin.write("go on\n")
        process.stdin.close()
        said = process.stderr.read() if process.stderr else ""
    return process.returncode, said


FIRST = "print('first', flush=True); sys.stdin.readline(); "


@pytest.mark.parametrize("rest", ["print('second')", "print('x' * 100_000)", "print('second', flush=True)"])
@pytest.mark.parametrize("both", [False, True])
def test_a_reader_that_goes_ends_the_command_without_a_word(rest: str, both: bool) -> None:
    assert piped(FIRST + rest, both=both) == (141, "")


def test_an_error_that_nobody_reads_is_no_traceback() -> None:
    rest = "from common.errors import UserError; raise UserError('wrong')"
    assert piped(FIRST + rest, both=True)[0] == 141
    assert piped(FIRST + rest, both=False) == (2, "error: wrong\n")


def test_a_pipe_of_another_kind_that_breaks_is_an_error() -> None:
    body = "print('first', flush=True); raise BrokenPipeError('a socket')"
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(body=body)], cwd=CHECKOUT, capture_output=True, text=True
    )
    assert result.returncode == 1
    assert "BrokenPipeError: a socket" in result.stderr


def test_help_through_a_closed_pipe_is_no_traceback(tmp_path: Path) -> None:
    command = f"{sys.executable} -m deploy --help 2>{tmp_path / 'said'} | true"
    subprocess.run(command, shell=True, cwd=CHECKOUT, check=True)
    assert (tmp_path / "said").read_text() == ""
