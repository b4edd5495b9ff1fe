"""What a bug report says of the machine, and what it never says."""

import builtins
import json
from typing import Any

import pytest

from deploy.__main__ import main
from deploy.cluster.environment import SECRET_VARIABLES, environment, shown_address


def test_it_names_what_is_installed_and_what_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    import ray

    assert main(["env", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["packages"]["ray"] == ray.__version__
    assert "MISSING" not in found["packages"].values()
    assert "pytest" not in found["packages"]
    assert set(found) == {"checkout", "packages", "machine", "gpus", "ray", "variables"}


def test_secrets_are_never_shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name in (*SECRET_VARIABLES, "AWS_SECRET_ACCESS_KEY", "MY_PASSWORD"):
        monkeypatch.setenv(name, "hunter2")
    monkeypatch.setenv("RAY_ADDRESS", "ray://me:hunter2@127.0.0.1:9/hunter2?token=hunter2#hunter2")
    for options in ([], ["--json"]):
        assert main(["env", *options]) == 0
        said = capsys.readouterr().out
        assert "hunter2" not in said
        assert "set (not shown)" in said
        assert "ray://127.0.0.1:9 (nothing answers there" in said


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("10.0.0.1:6379", "10.0.0.1:6379"),
        ("auto", "auto"),
        ("http://u:p@head:8265/x?token=t", "http://head:8265"),
        ("u:p@head:6379", "head:6379"),
        ("head:port", "cannot be read"),
    ],
)
def test_an_address_is_shown_without_what_may_be_secret(address: str, shown: str) -> None:
    assert shown_address(address) == shown


def test_a_broken_torch_is_part_of_the_report(monkeypatch: pytest.MonkeyPatch) -> None:
    import_it = builtins.__import__

    def broken(name: str, *rest: Any) -> Any:
        if name == "torch":
            raise OSError("libcudart.so.13: cannot open shared object file")
        return import_it(name, *rest)

    monkeypatch.setattr(builtins, "__import__", broken)
    assert environment()["gpus"] == {
        "torch": "cannot be asked (OSError: libcudart.so.13: cannot open shared object file)"
    }
