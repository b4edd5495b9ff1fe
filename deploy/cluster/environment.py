"""What a bug report should say of this machine.

Nothing here is a secret: of the environment's variables only those of a list are shown, and of an address nothing
but scheme, host and port.
"""

import os
import platform
import re
import shutil
import socket
import subprocess
import sys
import tomllib
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of
from pathlib import Path
from urllib.parse import urlsplit

from common.errors import first_line
from common.paths import CHECKOUT, code_fingerprint, resolve

Facts = dict[str, dict[str, str]]

SECONDS = 3.0  # that anything outside this process may take
SHOWN_VARIABLES = (
    "CUDA_VISIBLE_DEVICES",
    "NVIDIA_VISIBLE_DEVICES",
    "OMP_NUM_THREADS",
    "NCCL_DEBUG",
    "NCCL_SOCKET_IFNAME",
    "GLOO_SOCKET_IFNAME",
    "PYTORCH_CUDA_ALLOC_CONF",
    "RAY_AUTH_MODE",
)
SECRET_VARIABLES = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "HF_TOKEN", "WANDB_API_KEY")
"""Of which is said only that they are set."""


def version() -> str:
    """The project's version, with a fingerprint of its code."""
    return f"{_project()['name']} {_project()['version']} (code {code_fingerprint()}{_commit()})"


def environment() -> Facts:
    """By subject: this checkout, Python and its packages, the machine, its GPUs, and Ray."""
    return {
        "checkout": {"version": version(), "python": f"{platform.python_version()} ({_kind_of_python()})"},
        "packages": _packages(),
        "machine": _told(_machine, "machine"),
        "gpus": _told(_gpus, "torch"),
        "ray": _ray(),
        "variables": _variables(),
    }


def shown_address(address: str) -> str:
    """Scheme, host and port alone: a URL may carry a name, a password or a token."""
    try:
        parts = urlsplit(address if "://" in address else f"//{address}")
        place = f"{parts.hostname or ''}:{parts.port}" if parts.port else parts.hostname or ""
    except ValueError:
        return "cannot be read"
    return f"{parts.scheme}://{place}" if parts.scheme else place


def _project() -> dict:
    return tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]


def _commit() -> str:
    if not (CHECKOUT / ".git").exists():
        return ""
    commit = _output("git", "-C", str(CHECKOUT), "describe", "--always", "--dirty", "--abbrev=10")
    return f", commit {commit}" if commit else ""


def _kind_of_python() -> str:
    return "virtual environment" if sys.prefix != sys.base_prefix else "of the system"


def _packages() -> dict[str, str]:
    """Of what the project needs, and of what it can use."""
    project = _project()
    needed = [_name(each) for each in project["dependencies"]]
    extras = [each for group, them in project["optional-dependencies"].items() if group != "dev" for each in them]
    optional = sorted({_name(each) for each in extras})
    return {name: _version_of(name, "MISSING") for name in needed} | {
        name: _version_of(name, "not installed (optional)") for name in optional
    }


def _name(requirement: str) -> str:
    return re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0]


def _version_of(package: str, missing: str) -> str:
    try:
        return version_of(package)
    except PackageNotFoundError:
        return missing


def _machine() -> dict[str, str]:
    runs = resolve("runs")
    free = shutil.disk_usage(runs if runs.is_dir() else CHECKOUT).free
    facts = {
        "system": f"{platform.system()} {platform.release()} {platform.machine()}, {_distribution()}",
        "cpus": f"{len(os.sched_getaffinity(0))} of {os.cpu_count()} usable",
        "memory": f"{_gigabytes(os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES'))}",
        "free for runs/": _gigabytes(free),
    }
    shared = Path("/dev/shm")
    if shared.is_dir():
        facts["free in /dev/shm"] = f"{_gigabytes(shutil.disk_usage(shared).free)} (Ray's object store)"
    return facts


def _distribution() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return "distribution unknown"


def _told(look: Callable[[], dict[str, str]], what: str) -> dict[str, str]:
    """What `look` finds; a report is needed most where something is broken."""
    try:
        return look()
    except Exception as error:  # whatever an import of a broken installation raises
        return {what: f"cannot be asked ({type(error).__name__}: {first_line(error)})"}


def _gpus() -> dict[str, str]:
    import torch

    built_for = f"CUDA {torch.version.cuda}" if torch.version.cuda else "the CPU alone"
    facts = {"torch is built for": built_for}
    drivers = _output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader").splitlines()
    facts["driver"] = drivers[0] if drivers else "none found (nvidia-smi)"
    for index in range(torch.cuda.device_count()):
        gpu = torch.cuda.get_device_properties(index)
        facts[f"gpu {index}"] = f"{gpu.name}, {_gigabytes(gpu.total_memory)}, capability {gpu.major}.{gpu.minor}"
    if not torch.cuda.device_count():
        facts["gpus"] = "none"
    return facts


def _ray() -> dict[str, str]:
    address = os.environ.get("RAY_ADDRESS", "")
    if not address:
        return {"RAY_ADDRESS": "not set: train starts a Ray of its own"}
    shown = shown_address(address)
    return {"RAY_ADDRESS": f"{shown} ({_answer(address)})" if ":" in shown else shown}


def _answer(address: str) -> str:
    parts = urlsplit(address if "://" in address else f"//{address}")
    try:
        with socket.create_connection((parts.hostname or "", parts.port or 0), timeout=SECONDS):
            return "something listens there"
    except OSError as error:
        return f"nothing answers there: {error.strerror or error}"


def _variables() -> dict[str, str]:
    shown = {name: os.environ[name] for name in SHOWN_VARIABLES if name in os.environ}
    secret = {name: "set (not shown)" for name in SECRET_VARIABLES if name in os.environ}
    return shown | secret or {"none": "of those that matter here"}


def _output(*command: str) -> str:
    """Of a program, without the last newline; empty where it is not there, fails or takes too long."""
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return result.stdout.strip() if result.returncode == 0 else ""


def _gigabytes(num_bytes: float) -> str:
    return f"{num_bytes / 1e9:.1f} GB"
