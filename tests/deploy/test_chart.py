"""The Helm chart, as far as it can be checked without helm; with helm, rendered too (`make helm-check` does more)."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from sandwich_node.main import app
from sandwich_sdk._version import __version__

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "helm" / "sandwich"
JOIN = get_command(app).commands["join"]  # type: ignore[attr-defined]
needs_helm = pytest.mark.skipif(not shutil.which("helm"), reason="helm is not installed")


def test_the_chart_has_the_version_of_the_project() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (__version__, __version__)


def test_the_charts_alert_rules_are_those_of_prometheus() -> None:
    rules = ROOT / "deploy" / "prometheus" / "sandwich.rules.yml"
    assert (CHART / "files" / "sandwich.rules.yml").read_text() == rules.read_text(), "copy it there"


def test_every_value_has_a_place_in_the_schema_and_every_template_names_only_values_that_exist() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    schema = json.loads((CHART / "values.schema.json").read_text())
    assert set(schema["properties"]) - {"global"} == set(values)
    for name, value in values.items():
        place = schema["properties"][name]
        if isinstance(value, dict) and "properties" in place:
            assert set(value) == set(place["properties"]), name
    text = "".join(path.read_text() for path in (CHART / "templates").iterdir())
    for path in sorted(set(re.findall(r"\.Values\.([\w.]+)", text))):
        place = values
        for part in path.split("."):
            assert part in place, f".Values.{path}"
            place = place[part]


def test_every_variable_of_the_pod_is_one_of_join() -> None:
    text = (CHART / "templates" / "statefulset.yaml").read_text()
    known = {str(option.envvar) for option in JOIN.params if option.envvar}
    named = set(re.findall(r"name: (SANDWICH_\w+)", text))
    assert named <= known
    assert known - named == {"SANDWICH_INSECURE_PLAINTEXT"}


def rendered(values: str) -> dict[str, Any]:
    done = subprocess.run(
        ["helm", "template", "bots", str(CHART), "--kube-version", "1.30.0", "-f", str(CHART / "ci" / values)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return {each["kind"]: each for each in yaml.safe_load_all(done.stdout) if each}


@needs_helm
def test_the_rendered_chart_drains_within_the_grace_period_and_takes_secrets_by_reference() -> None:
    least, everything = rendered("least.yaml"), rendered("everything.yaml")
    assert set(least) == {"Service", "StatefulSet"}
    assert set(everything) == {
        *least, "PodDisruptionBudget", "NetworkPolicy", "ServiceMonitor", "PrometheusRule", "HorizontalPodAutoscaler",
    }  # fmt: skip
    pod = everything["StatefulSet"]["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] >= 30
    assert "replicas" not in everything["StatefulSet"]["spec"], "the autoscaler's"
    assert least["StatefulSet"]["spec"]["replicas"] == 3
    assert pod["containers"][0]["readinessProbe"]["httpGet"]["scheme"] == "HTTPS"
    (endpoint,) = everything["ServiceMonitor"]["spec"]["endpoints"]
    assert (endpoint["scheme"], endpoint["authorization"]["credentials"]["name"]) == ("https", "prometheus-token")
    volumes = {volume["name"]: volume["secret"]["secretName"] for volume in pod["volumes"]}
    assert volumes == {
        "key": "sandwich-key",
        "tls": "node-tls",
        "etcd-tls": "etcd-client",
        "etcd-password": "etcd-password",
        "extra-nats-ca": "nats-ca",
    }
    rules = yaml.safe_load((ROOT / "deploy" / "prometheus" / "sandwich.rules.yml").read_text())
    assert everything["PrometheusRule"]["spec"] == rules
