"""The dashboard and the alert rules of examples/monitoring use what a server really exports, and no more."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
import yaml  # type: ignore[import-untyped]  # it ships no types
from prometheus_client.parser import text_string_to_metric_families

from support.running_server import RunningServer

PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="needs promtool: apt-get install prometheus")

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
def scraped(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return what a server that has done something answers at ``/metrics``."""
    with RunningServer(tmp_path_factory.mktemp("monitoring") / "data") as server:
        headers = {"Authorization": f"Bearer {server.token}"}
        with httpx.Client(base_url=server.url, headers=headers) as client:
            call = '["push",["pipeline",0,["createShare"],["ses_monitoring_00001"]]]\n["pull",1]'
            client.post("/rpc", content=call)
            client.get("/api/search?q=nothing")
            client.get("/api/sessions", headers={"Authorization": "Bearer wrong"})
            return client.get("/metrics").text


@pytest.fixture(scope="module")
def exported(scraped: str) -> dict[str, set[str]]:
    """Return the names of all series, with their labels."""
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(scraped):
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


# What fires each alert, and what looks like it and does not. Values are as promtool has them, one a minute:
# a+bxn is a and n more, each b more than the one before.


class Firing(NamedTuple):
    """Series that fire an alert, and such that do not."""

    alert: str
    series: dict[str, str]
    quiet: dict[str, str]
    summary: str


WHERE = 'instance="one",job="rpcshare"'

FIRING = [
    Firing(
        "RpcshareDown",
        {f"up{{{WHERE}}}": "0x30"},
        {f"up{{{WHERE}}}": "1x10 0 1x19"},
        "one does not answer /metrics",
    ),
    Firing(
        "RpcshareStoreFails",
        {f'rpcshare_store_operation_failures_total{{{WHERE},operation="apply"}}': "0+1x30"},
        {f'rpcshare_store_operation_failures_total{{{WHERE},operation="apply"}}': "0x15 1x14"},
        "one: apply of the store fails",
    ),
    Firing(
        "RpcshareStoreSlow",
        {
            f'rpcshare_store_operation_seconds_bucket{{{WHERE},operation="put",le="1.0"}}': "0+98x30",
            f'rpcshare_store_operation_seconds_bucket{{{WHERE},operation="put",le="2.5"}}': "0+100x30",
            f'rpcshare_store_operation_seconds_bucket{{{WHERE},operation="put",le="+Inf"}}': "0+100x30",
        },
        {
            f'rpcshare_store_operation_seconds_bucket{{{WHERE},operation="get",le="1.0"}}': "0+98x30",
            f'rpcshare_store_operation_seconds_bucket{{{WHERE},operation="get",le="2.5"}}': "0+100x30",
            f'rpcshare_store_operation_seconds_bucket{{{WHERE},operation="get",le="+Inf"}}': "0+100x30",
        },
        "one: one write to the store in 100 takes over 1 s",
    ),
    Firing(
        "RpcshareDiskNearlyFull",
        {f"rpcshare_store_disk_free_bytes{{{WHERE}}}": "5e8x30"},
        {f"rpcshare_store_disk_free_bytes{{{WHERE}}}": "2e9x30"},
        "one: less than 1 GB is free for the store",
    ),
    Firing(
        "RpcshareServerErrors",
        {
            f'rpcshare_http_requests_total{{{WHERE},route="/rpc",method="POST",status="500"}}': "0+5x30",
            f'rpcshare_http_requests_total{{{WHERE},route="/rpc",method="POST",status="503"}}': "0+5x30",
        },
        {f'rpcshare_http_requests_total{{{WHERE},route="/rpc",method="POST",status="404"}}': "0+60x30"},
        "one: /rpc answers with errors of the server",
    ),
    Firing(
        "RpcshareCallsFail",
        {f'rpcshare_rpc_calls_total{{{WHERE},method="syncShare",outcome="STORAGE_UNAVAILABLE"}}': "0+60x30"},
        {f'rpcshare_rpc_calls_total{{{WHERE},method="syncShare",outcome="SHARE_NOT_FOUND"}}': "0+60x30"},
        "one: RPC calls of syncShare fail",
    ),
    Firing(
        "RpcshareEventLoopLate",
        {f"rpcshare_event_loop_lag_seconds{{{WHERE}}}": "0x5 2 0 0 2 0 0 2 0 0 2 0 0 2 0 0 2x9"},
        {f"rpcshare_event_loop_lag_seconds{{{WHERE}}}": "0x24 2 0x4"},
        "one: the event loop is late by more than 1 s",
    ),
    Firing(
        "RpcshareSearchBehind",
        {f"rpcshare_index_available{{{WHERE}}}": "0x30", f"rpcshare_index_lag_seconds{{{WHERE}}}": "0x30"},
        {f"rpcshare_index_available{{{WHERE}}}": "1x30", f"rpcshare_index_lag_seconds{{{WHERE}}}": "60x30"},
        "one: search does not find what was shared last",
    ),
    Firing(
        "RpcshareSearchBehind",
        {f"rpcshare_index_available{{{WHERE}}}": "1x30", f"rpcshare_index_lag_seconds{{{WHERE}}}": "0+60x30"},
        {
            f"rpcshare_index_available{{{WHERE}}}": "1x30",
            f"rpcshare_index_lag_seconds{{{WHERE}}}": "0 60 0x28",
        },
        "one: search does not find what was shared last",
    ),
    Firing(
        "RpcshareFewDescriptors",
        {f"rpcshare_accept_pauses_total{{{WHERE}}}": "0+1x30"},
        {f"rpcshare_accept_pauses_total{{{WHERE}}}": "7x30"},
        "one: file descriptors run out (LimitNOFILE=)",
    ),
    Firing(
        "RpcshareFewDescriptors",
        {f"process_open_fds{{{WHERE}}}": "900x30", f"process_max_fds{{{WHERE}}}": "1024x30"},
        {f"process_open_fds{{{WHERE}}}": "100x30", f"process_max_fds{{{WHERE}}}": "1024x30"},
        "one: file descriptors run out (LimitNOFILE=)",
    ),
    Firing(
        "RpcshareGuessing",
        {f'rpcshare_limit_refusals_total{{{WHERE},limit="failed_authentications"}}': "0+120x30"},
        {f'rpcshare_limit_refusals_total{{{WHERE},limit="creates"}}': "0+120x30"},
        "one: somebody tries many wrong credentials; the audit log has the address",
    ),
    Firing(
        "RpcshareWritesWait",
        {f'rpcshare_queue_depth{{{WHERE},queue="writes"}}': "5000x30"},
        {f'rpcshare_queue_depth{{{WHERE},queue="pages"}}': "5000x30"},
        "one: syncs wait for the store",
    ),
]


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((MONITORING / "alerts.yaml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def rule_test(alert: str, series: dict[str, str], fired: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "alert_rule_test": [{"eval_time": "25m", "alertname": alert, "exp_alerts": fired}],
    }


def asked_of_promtool(tmp_path: Path, *tests: dict[str, Any]) -> None:
    document = {
        "rule_files": [str(MONITORING / "alerts.yaml")],
        "evaluation_interval": "1m",
        "tests": list(tests),
    }
    path = tmp_path / "test.yaml"
    path.write_text(json.dumps(document))  # which YAML is, too
    command = [str(PROMTOOL), "test", "rules", str(path)]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert finished.returncode == 0, finished.stdout + finished.stderr


def test_each_alert_is_tested() -> None:
    assert {firing.alert for firing in FIRING} == {rule["alert"] for rule in rules()}


@needs_promtool
@pytest.mark.parametrize("firing", FIRING, ids=lambda firing: firing.alert)
def test_an_alert_fires_when_it_should_and_not_otherwise(firing: Firing, tmp_path: Path) -> None:
    (rule,) = (rule for rule in rules() if rule["alert"] == firing.alert)
    own = {
        label: match for series in firing.series for label, match in re.findall(r'(\w+)="([^"]*)"', series)
    }
    # Of what the expression aggregates over, only what it groups by is left.
    grouped = re.search(r"sum by \(([^)]*)\)", rule["expr"])
    kept = set(grouped[1].split(", ")) - {"le"} if grouped else own.keys()
    expected = {
        "exp_labels": {**{name: own[name] for name in kept}, **rule["labels"]},
        "exp_annotations": {"summary": firing.summary},
    }
    asked_of_promtool(
        tmp_path,
        rule_test(firing.alert, firing.series, [expected]),
        rule_test(firing.alert, firing.quiet, []),
    )


@needs_promtool
@pytest.mark.parametrize(
    "arguments", [("check", "rules", "alerts.yaml"), ("check", "config", "--syntax-only", "prometheus.yaml")]
)
def test_prometheus_understands_the_files(arguments: tuple[str, ...]) -> None:
    command = [str(PROMTOOL), *arguments]
    finished = subprocess.run(
        command, cwd=MONITORING, capture_output=True, text=True, timeout=60, check=False
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr


@needs_promtool
def test_prometheus_finds_nothing_to_criticize_in_the_names_of_the_metrics(
    scraped: str,
) -> None:
    finished = subprocess.run(
        [str(PROMTOOL), "check", "metrics"],
        input=scraped,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (finished.returncode, finished.stdout + finished.stderr) == (0, "")


@needs_promtool
def test_prometheus_parses_each_expression_of_the_dashboard(tmp_path: Path) -> None:
    parsed = []
    for number, written in enumerate(dashboard()):
        expression = written.replace("$instance", ".+").replace("$__rate_interval", "5m")
        variable = re.fullmatch(r"label_values\((.+), \w+\)", expression)  # Grafana's own
        parsed.append({"record": f"of:panel{number}", "expr": variable[1] if variable else expression})
    assert not [rule for rule in parsed if "$" in rule["expr"]]
    path = tmp_path / "rules.yaml"
    path.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": parsed}]}))
    finished = subprocess.run(
        [str(PROMTOOL), "check", "rules", str(path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
