"""The dashboard and the alert rules of examples/monitoring use what a server really exports, and no more."""

import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml  # type: ignore[import-untyped]  # it ships no types
from prometheus_client.parser import text_string_to_metric_families

from support.running_server import RunningServer

MONITORING = Path(__file__).parent.parent / "examples" / "monitoring"
NAME = re.compile(r"\b(?:rpcshare|process)_[a-z_]+")
LABEL = re.compile(r"((?:rpcshare|process)_[a-z_]+)\{([^}]*)\}")
# Of the scrape, not of the server.
FROM_PROMETHEUS = {"instance", "job"}


def dashboard() -> list[str]:
    found: dict[str, Any] = json.loads((MONITORING / "dashboard.json").read_text())
    variables = [each["query"]["query"] for each in found["templating"]["list"] if each["type"] == "query"]
    return [target["expr"] for panel in found["panels"] for target in panel["targets"]] + variables


def alerts() -> list[str]:
    groups = yaml.safe_load((MONITORING / "alerts.yaml").read_text())["groups"]
    return [rule["expr"] for group in groups for rule in group["rules"]]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """Return the names of all series of a server that has done something, with their labels."""
    with RunningServer(tmp_path_factory.mktemp("monitoring") / "data") as server:
        headers = {"Authorization": f"Bearer {server.token}"}
        with httpx.Client(base_url=server.url, headers=headers) as client:
            call = '["push",["pipeline",0,["createShare"],["ses_monitoring_00001"]]]\n["pull",1]'
            client.post("/rpc", content=call)
            client.get("/api/search?q=nothing")
            client.get("/api/sessions", headers={"Authorization": "Bearer wrong"})
            text = client.get("/metrics").text
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


@pytest.mark.parametrize("expressions", [dashboard(), alerts()], ids=["dashboard", "alerts"])
def test_each_series_that_is_used_is_exported_with_its_labels(
    exported: dict[str, set[str]], expressions: list[str]
) -> None:
    used = {name for expression in expressions for name in NAME.findall(expression)}
    assert len(used) > 10
    assert not used - exported.keys()
    for expression in expressions:
        for name, selector in LABEL.findall(expression):
            labels = set(re.findall(r"(\w+)(?:=|!=|=~)\"", selector)) - FROM_PROMETHEUS
            assert labels <= exported[name], expression
        for grouping in re.findall(r"by \(([^)]*)\)", expression):
            labels = {label.strip() for label in grouping.split(",")} - FROM_PROMETHEUS
            assert all(labels <= exported[name] for name in NAME.findall(expression)), expression


def test_each_series_about_the_load_of_a_server_is_on_the_dashboard(
    exported: dict[str, set[str]],
) -> None:
    shown = " ".join(dashboard())
    of_load = {name for name in exported if re.match("rpcshare_(store|database|index|queue|limit)_", name)}
    of_load = {re.sub("_(bucket|count|sum|total)$", "", name) for name in of_load}
    unshown = {name for name in of_load if name not in shown}
    assert unshown <= {
        "rpcshare_store_errors",
        "rpcshare_database_operation_failures",
        "rpcshare_index_available",
    }
