"""The report of known vulnerabilities says what was looked up, and never passes silence off as good news."""

import json
import runpy
import sys

import pytest

from common.paths import CHECKOUT

AUDIT = runpy.run_path(str(CHECKOUT / ".ci" / "audit.py"))
SOUND = {"name": "numpy", "version": "2.4.0", "vulns": []}
UNKNOWN = {"name": "torch", "skip_reason": "Dependency not found on PyPI"}
HURT = {"name": "pillow", "version": "11.0", "vulns": [{"id": "CVE-1", "fix_versions": ["11.1"], "aliases": []}]}


def lines(*packages: dict) -> list[str]:
    return AUDIT["report"](json.dumps({"dependencies": packages, "fixes": []}))


def test_a_vulnerability_is_named_with_the_release_that_mends_it() -> None:
    assert lines(SOUND, HURT, UNKNOWN) == [
        "audit: 1 known vulnerabilities in 2 of 3 packages looked up",
        "audit: pillow 11.0: CVE-1, mended in 11.1",
    ]


def test_a_database_that_knows_no_package_is_no_good_news() -> None:
    said = ["audit: not done: the database of vulnerabilities knew none of 1 packages from here"]
    assert lines(UNKNOWN) == said


@pytest.mark.parametrize(
    ("program", "patience", "said"),
    [
        ("import sys; sys.exit('no route to the database')", 60, "audit: not done: no route to the database\n"),
        ("import time; time.sleep(60)", 1, "audit: not done: no answer in 1 s\n"),
    ],
)
def test_without_an_answer_it_says_so_in_a_line(
    program: str, patience: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    main = AUDIT["main"]
    main.__globals__.update(COMMAND=(sys.executable, "-c", program), PATIENCE_SECONDS=patience)
    main()
    assert capsys.readouterr().out == said
