"""`python -m deploy.monitoring.files` writes the dashboard, and it and the rules as Kubernetes manifests."""

import json
from pathlib import Path
from typing import Any

from common.paths import CHECKOUT
from deploy.monitoring.dashboard import run_dashboard

RULES = CHECKOUT / "deploy" / "prometheus"
KUBERNETES = CHECKOUT / "deploy" / "kubernetes"

_RULE_HEAD = """\
# The rules of deploy/prometheus for the Prometheus operator: edit them there, then
# `python -m deploy.monitoring.files`. Where its Prometheus asks for a label (ruleSelector), give these the same.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: vapi
spec:
  groups:
"""
_DASHBOARD_HEAD = """\
# deploy/grafana/dashboard.json for the sidecar of Grafana's Helm chart, which looks for this label.
# Edit deploy/monitoring/dashboard.py, then `python -m deploy.monitoring.files`.
apiVersion: v1
kind: ConfigMap
metadata:
  name: vapi-dashboard
  labels: {grafana_dashboard: "1"}
data:
  vapi.json: |
"""


def files() -> dict[Path, str]:
    """What each generated file is to hold."""
    dashboard, rules = _json(run_dashboard()), _groups("recording_rules.yml") + _groups("alert_rules.yml")
    return {
        CHECKOUT / "deploy" / "grafana" / "dashboard.json": dashboard,
        KUBERNETES / "dashboard.yaml": _DASHBOARD_HEAD + _indented(dashboard, 4),
        KUBERNETES / "prometheusrule.yaml": _RULE_HEAD + rules,
    }


def _json(dashboard: dict[str, Any]) -> str:
    """A line for each panel."""
    panels = ",\n".join(f"  {json.dumps(panel, ensure_ascii=False)}" for panel in dashboard["panels"])
    rest = json.dumps(dashboard | {"panels": []}, indent=1, ensure_ascii=False)
    return rest.replace('"panels": []', f'"panels": [\n{panels}\n ]') + "\n"


def _groups(file: str) -> str:
    """The rule groups of a file as they stand there, comments included, below `spec.groups`."""
    return _indented((RULES / file).read_text().partition("groups:\n")[2].rstrip("\n") + "\n", 2)


def _indented(text: str, spaces: int) -> str:
    return "".join(" " * spaces + line if line.strip() else line for line in text.splitlines(keepends=True))


if __name__ == "__main__":
    for path, text in files().items():
        path.write_text(text)
