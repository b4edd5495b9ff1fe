"""The Kubernetes manifests and the image: fields that exist, names that fit together, nothing run by root."""

import copy
import json
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from packaging.requirements import Requirement

from common.config.load import load_recipe
from common.paths import CHECKOUT

FOLDER = CHECKOUT / "deploy" / "kubernetes"
SCHEMAS = json.loads((CHECKOUT / "tests/data/kubernetes/custom_resources.json").read_text())
KUBERNETES = "1.33"
NAMES = (
    "raycluster",
    "rayjob",
    "podmonitor",
    "servicemonitor",
    "prometheusrule",
    "dashboard",
    "networkpolicy",
    "shared-storage",
)


def manifest(name: str) -> dict[str, Any]:
    return yaml.safe_load((FOLDER / f"{name}.yaml").read_text())


def validate(tree: dict[str, Any]) -> None:
    """Raises ValidationError at a field that is unknown, missing or of the wrong type."""
    if tree["kind"] in SCHEMAS:
        jsonschema.validate(tree, SCHEMAS[tree["kind"]])
        for template in pod_templates(tree):
            pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": template["spec"]}
            kubernetes_validate.validate(pod, KUBERNETES, strict=True)
    else:
        kubernetes_validate.validate(tree, KUBERNETES, strict=True)


def pod_templates(tree: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if tree["kind"] == "RayCluster":
        yield from (group["template"] for group in groups(tree))


def groups(cluster: dict[str, Any]) -> list[dict[str, Any]]:
    """The head's and the workers'."""
    return [cluster["spec"]["headGroupSpec"], *cluster["spec"]["workerGroupSpecs"]]


@pytest.mark.parametrize("name", NAMES)
def test_a_manifest_has_no_field_that_is_unknown_or_of_the_wrong_type(name: str) -> None:
    validate(manifest(name))


@pytest.mark.parametrize(
    ("name", "path", "field", "value"),
    [
        ("raycluster", ("spec",), "enableInTreeAutoscalling", True),
        ("raycluster", ("spec", "workerGroupSpecs", 1), "maxReplica", 8),
        ("raycluster", ("spec", "workerGroupSpecs", 1), "maxReplicas", "8"),
        ("raycluster", ("spec", "headGroupSpec", "template", "spec"), "securityContexts", {}),
        ("raycluster", ("spec", "headGroupSpec", "template", "spec", "containers", 0), "imag", "va-pi"),
        ("rayjob", ("spec",), "runtimeEnvYaml", ""),
        ("rayjob", ("spec",), "submissionMode", "k8sJobMode"),
        ("podmonitor", ("spec",), "podMetricEndpoints", []),
        ("servicemonitor", ("spec", "endpoints", 0), "interval", 15),
        ("prometheusrule", ("spec", "groups", 0, "rules", 0), "alert", "TwoNames"),
        ("prometheusrule", ("spec", "groups", 4, "rules", 0), "annotation", {}),
        ("prometheusrule", ("spec", "groups", 4, "rules", 0), "for", 60),
        ("dashboard", (), "date", {}),
        ("networkpolicy", ("spec",), "ingres", []),
        ("networkpolicy", ("spec", "ingress", 0, "from", 0), "podSelectors", {}),
        ("shared-storage", ("spec",), "accessMode", ["ReadWriteMany"]),
    ],
)
def test_a_typing_error_is_refused(name: str, path: tuple[str | int, ...], field: str, value: object) -> None:
    tree: Any = copy.deepcopy(manifest(name))
    place = tree
    for step in path:
        place = place[step]
    place[field] = value
    with pytest.raises(jsonschema.ValidationError):
        validate(tree)


def test_the_files_here_are_the_manifests_that_are_checked() -> None:
    assert {path.stem for path in FOLDER.glob("*.yaml")} == {*NAMES, "kustomization"}


def test_no_container_runs_as_root_or_can_become_it() -> None:
    cluster = manifest("raycluster")
    for template in pod_templates(cluster):
        pod = template["spec"]["securityContext"]
        assert (pod["runAsNonRoot"], pod["runAsUser"]) == (True, 1000)
        assert pod["seccompProfile"] == {"type": "RuntimeDefault"}
        contexts = [container["securityContext"] for container in template["spec"]["containers"]]
        for context in (*contexts, cluster["spec"]["autoscalerOptions"]["securityContext"]):
            assert context == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def test_the_cluster_asks_for_a_token_that_no_file_here_holds() -> None:
    assert manifest("raycluster")["spec"]["authOptions"] == {"mode": "token", "secretName": "vapi-ray-token"}
    assert all("kind: Secret" not in path.read_text() for path in FOLDER.glob("*.yaml"))
    assert "create secret generic vapi-ray-token --from-literal=auth_token=" in (FOLDER / "README.md").read_text()


def test_the_job_is_a_run_that_the_recipe_allows_and_the_cluster_can_place() -> None:
    job, cluster = manifest("rayjob"), manifest("raycluster")
    assert job["spec"]["clusterSelector"] == {"ray.io/cluster": cluster["metadata"]["name"]}
    program, recipe_path, *overrides = _split_entrypoint(job["spec"]["entrypoint"])
    assert program == "python -m deploy train"
    recipe = load_recipe(CHECKOUT / recipe_path, overrides)
    labels = {group["groupName"]: group["labels"] for group in cluster["spec"]["workerGroupSpecs"]}
    assert recipe.learner.label_selector == labels["learner"]
    assert recipe.actors.label_selector == labels["reward-actors"]
    assert recipe.metrics.host == "0.0.0.0"
    for path in (recipe.run.dir, recipe.source.path, recipe.tokenizer.checkpoint, recipe.policy.checkpoint):
        assert str(path).startswith("/shared/")
    for group in groups(cluster):
        container = group["template"]["spec"]["containers"][0]
        assert {"name": "shared", "mountPath": "/shared"} in container["volumeMounts"]


def _split_entrypoint(entrypoint: str) -> list[str]:
    words = shlex.split(entrypoint)
    return [" ".join(words[:4]), *words[4:]]


def test_a_job_on_kubernetes_has_the_environment_of_every_job() -> None:
    environment = yaml.safe_load(manifest("rayjob")["spec"]["runtimeEnvYAML"])
    shared = yaml.safe_load((CHECKOUT / "deploy/ray/runtime_env.yaml").read_text())
    assert environment == {"working_dir": "/opt/va-pi"} | shared


@pytest.mark.parametrize("name", ["podmonitor", "servicemonitor"])
def test_a_monitor_finds_the_port_that_the_driver_serves_on(name: str) -> None:
    head = manifest("raycluster")["spec"]["headGroupSpec"]["template"]["spec"]["containers"][0]
    ports = {port["name"]: port["containerPort"] for port in head["ports"]}
    spec = manifest(name)["spec"]
    (endpoint,) = spec.get("podMetricsEndpoints") or spec["endpoints"]
    assert (
        ports[endpoint["port"]] == load_recipe(CHECKOUT / "deploy/recipes/llamagen_xxl_c2i.yaml", []).metrics.port
    )
    assert spec["selector"]["matchLabels"] == {"ray.io/cluster": "vapi", "ray.io/node-type": "head"}
    assert endpoint["honorLabels"] is True  # else the driver's `run` could become exported_run


def test_the_operators_rules_are_the_rules_of_every_prometheus() -> None:
    files = [CHECKOUT / "deploy/prometheus" / name for name in ("recording_rules.yml", "alert_rules.yml")]
    groups_of_files = [group for path in files for group in yaml.safe_load(path.read_text())["groups"]]
    assert manifest("prometheusrule")["spec"]["groups"] == groups_of_files


def test_grafana_finds_the_dashboard_by_its_label() -> None:
    config_map = manifest("dashboard")
    assert config_map["metadata"]["labels"] == {"grafana_dashboard": "1"}
    dashboard = json.loads((CHECKOUT / "deploy/grafana/dashboard.json").read_text())
    assert json.loads(config_map["data"]["vapi.json"]) == dashboard


def test_the_pods_are_open_to_each_other_and_by_single_ports_to_who_needs_them() -> None:
    cluster = {"ray.io/cluster": manifest("raycluster")["metadata"]["name"]}
    spec = manifest("networkpolicy")["spec"]
    assert (spec["podSelector"], spec["policyTypes"]) == ({"matchLabels": cluster}, ["Ingress"])
    each_other, jobs, metrics = spec["ingress"]
    assert each_other == {"from": [{"podSelector": {"matchLabels": cluster}}]}
    head = manifest("raycluster")["spec"]["headGroupSpec"]["template"]["spec"]["containers"][0]
    named = {port["name"]: port["containerPort"] for port in head["ports"]}
    assert [named[port["port"]] for rule in (jobs, metrics) for port in rule["ports"]] == [8265, 9464]
    allowed = [source["podSelector"]["matchLabels"] for rule in (jobs, metrics) for source in rule["from"]]
    assert allowed == [
        {"app.kubernetes.io/name": "kuberay-operator"},
        {"batch.kubernetes.io/job-name": manifest("rayjob")["metadata"]["name"]},
        {"app.kubernetes.io/name": "prometheus"},
    ]


def test_the_declared_release_of_ray_is_one_that_the_image_may_have() -> None:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    (ray,) = (r for r in map(Requirement, project["dependencies"]) if r.name == "ray")
    assert ray.specifier.contains(manifest("raycluster")["spec"]["rayVersion"])


def test_kustomize_gives_every_container_the_one_image() -> None:
    kustomization = manifest("kustomization")
    assert all((FOLDER / name).is_file() for name in kustomization["resources"])
    images = {
        container["image"]
        for template in pod_templates(manifest("raycluster"))
        for container in template["spec"]["containers"]
    }
    assert images == {image["name"] for image in kustomization["images"]}
    if shutil.which("kubectl"):
        command = ["kubectl", "kustomize", str(FOLDER)]
        rendered = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        (cluster,) = (tree for tree in yaml.safe_load_all(rendered) if tree["kind"] == "RayCluster")
        validate(cluster)
        used = {t["spec"]["containers"][0]["image"] for t in pod_templates(cluster)}
        assert used == {"registry.example.com/va-pi:0.1.0"}


def hadolint(path: Path) -> subprocess.CompletedProcess:
    command = [str(Path(sys.executable).with_name("hadolint")), "--no-color", str(path)]
    return subprocess.run(command, capture_output=True, text=True)


def test_hadolint_has_nothing_to_say_about_the_dockerfile() -> None:
    result = hadolint(FOLDER / "Dockerfile")
    assert (result.returncode, result.stdout) == (0, "")


def test_hadolint_would_say_it(tmp_path: Path) -> None:
    bad = tmp_path / "Dockerfile"
    bad.write_text("FROM python\nRUN pip install torch\nRUN cd /tmp\n")
    result = hadolint(bad)
    assert result.returncode == 1
    assert {"DL3006", "DL3042", "DL3003"} <= set(result.stdout.replace("\n", " ").split())


def test_the_image_is_not_of_root_and_holds_the_rooms() -> None:
    lines = (FOLDER / "Dockerfile").read_text().splitlines()
    assert [line for line in lines if line.startswith("USER")] == ["USER 1000:1000"]
    kept = {
        line.removeprefix("!")
        for line in (FOLDER / "Dockerfile.dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    assert {"actors", "common", "deploy", "learner", "pyproject.toml", "README.md"} <= kept
    assert all((CHECKOUT / name).exists() for name in kept)


def test_ray_takes_the_launcher_file_and_refuses_a_typing_error() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    tree = yaml.safe_load((CHECKOUT / "deploy/ray/cluster.yaml").read_text())
    kinds = tree["available_node_types"]
    validate_config(prepare_config(copy.deepcopy(tree)))
    assert {name: kind["labels"]["vapi-role"] for name, kind in kinds.items()} == {
        "head": "head",
        "learner": "learner",
        "reward-actor": "reward-actor",
    }
    assert kinds["head"]["resources"]["CPU"] == 0
    for commands in (tree["head_start_ray_commands"], tree["worker_start_ray_commands"]):
        assert "RAY_AUTH_MODE=token" in commands[-1]
    kinds["learner"]["max_worker"] = 1
    with pytest.raises(jsonschema.ValidationError, match="max_worker"):
        validate_config(prepare_config(tree))
