"""Prints which installed packages have known vulnerabilities, as pip-audit finds them. Always exits with 0.

A report, not a gate: the database is on the network, and what it says changes without a change of ours.
"""

import json
import subprocess
import sys
from typing import Any

PATIENCE_SECONDS = 180
COMMAND = (sys.executable, "-m", "pip_audit", "--local", "--format", "json", "--progress-spinner", "off")


def report(output: str) -> list[str]:
    """What pip-audit's JSON says, in lines for people. Raises ValueError where it is none."""
    packages: list[dict[str, Any]] = json.loads(output)["dependencies"]
    known = [package for package in packages if "skip_reason" not in package]
    if not known:
        return [
            f"audit: not done: the database of vulnerabilities knew none of {len(packages)} packages from here"
        ]
    found = [(package, each) for package in known for each in package["vulns"]]
    lines = [f"audit: {len(found)} known vulnerabilities in {len(known)} of {len(packages)} packages looked up"]
    for package, each in found:
        mended = ", ".join(each["fix_versions"]) or "no release yet"
        lines.append(f"audit: {package['name']} {package['version']}: {each['id']}, mended in {mended}")
    return lines


def main() -> None:
    try:
        result = subprocess.run(COMMAND, capture_output=True, text=True, timeout=PATIENCE_SECONDS)
        lines = report(result.stdout)
    except subprocess.TimeoutExpired:
        lines = [f"audit: not done: no answer in {PATIENCE_SECONDS} s"]
    except ValueError:  # no JSON: no network, no pip-audit
        last = result.stderr.strip().splitlines()[-1:]
        lines = [f"audit: not done: {' '.join(last) or 'pip-audit said nothing'}"]
    print("\n".join(lines))


if __name__ == "__main__":
    main()
