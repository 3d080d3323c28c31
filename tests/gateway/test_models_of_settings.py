"""The tables ``[models.NAME]``: what they may say, and what is said of a wrong one."""

import os
from pathlib import Path

import pytest
from click.testing import CliRunner
from prometheus_client import CollectorRegistry, generate_latest

from rpcshare.auth.audit import AuditLog
from rpcshare.cli import main
from rpcshare.config import ConfigError, Settings, load_settings
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.gateway.gateway import GatewayCounts
from rpcshare.gateway.keys import fault_of_key
from rpcshare.gateway.metering import Usage
from rpcshare.gateway.models import ModelCatalogue, Prices, WireKind, parse_model_tables
from rpcshare.server.gateway_metrics import GatewayMetrics
from rpcshare.server.gateway_opening import opened_gateway

TABLE = """
[models.acme]
kind = "openai"
base-url = "https://api.acme.example/v1/"
key_env = "ACME_KEY"
models = ["large", "open/small"]
prices = { large = { input = 3.0, output = 15 } }
limits = { large = { context = 200000, output = 8000 } }

[models.claude]
kind = "anthropic"
base_url = "https://claude.example/v1"
models = ["opus"]
prices = { opus = { input = 4.0, output = 8.0, cache_read = 0.4 } }
"""


def settings_of(tmp_path: Path, text: str) -> Settings:
    path = tmp_path / "rpcshare.toml"
    path.write_text(text)
    return load_settings({}, path)


def table(**more: object) -> dict[str, object]:
    return {"kind": "openai", "base_url": "https://a.example", "models": ["m"], **more}


def test_tables_make_models_and_the_first_is_the_default(tmp_path):
    catalogue = ModelCatalogue(settings_of(tmp_path, TABLE).models)
    assert catalogue.names() == ["acme/large", "acme/open/small", "claude/opus"]
    assert catalogue.find(None).name == "acme/large"
    small = catalogue.find("acme/open/small")
    assert (small.id, small.prices, small.table.kind) == ("open/small", None, WireKind.OPENAI)
    assert small.table.url("/chat/completions") == "https://api.acme.example/v1/chat/completions"
    assert catalogue.find("acme/large").prices == Prices(3.0, 15.0)


def test_a_model_that_is_not_there_is_answered_with_those_that_are(tmp_path):
    catalogue = ModelCatalogue(settings_of(tmp_path, TABLE).models)
    for wanted in ("acme/huge", "large", "", "acme", "Acme/large", "claude/large"):
        with pytest.raises(ShareError, match="model: must be one of acme/large, acme/open/small") as caught:
            catalogue.find(wanted)
        assert caught.value.code is ErrorCode.INVALID_ARGUMENT
    with pytest.raises(ShareError, match=r"no table \[models.NAME\]"):
        ModelCatalogue(()).find(None)


def test_opencode_is_told_of_a_port_and_of_no_key(tmp_path):
    told = ModelCatalogue(settings_of(tmp_path, TABLE).models).opencode_providers(4000)
    assert told == {
        "acme": {
            "npm": "@ai-sdk/openai-compatible",
            "name": "acme",
            "options": {"baseURL": "http://127.0.0.1:4000/acme/v1", "apiKey": "none-in-here"},
            "whitelist": ["large", "open/small"],
            "models": {
                "large": {
                    "name": "large",
                    "limit": {"context": 200000, "output": 8000},
                    "cost": {"input": 3.0, "output": 15, "cache_read": 3.0, "cache_write": 3.0},
                },
                "open/small": {"name": "open/small"},
            },
        },
        "claude": {
            "npm": "@ai-sdk/anthropic",
            "name": "claude",
            "options": {"baseURL": "http://127.0.0.1:4000/claude/v1", "apiKey": "none-in-here"},
            "whitelist": ["opus"],
            "models": {
                "opus": {
                    "name": "opus",
                    "cost": {"input": 4.0, "output": 8.0, "cache_read": 0.4, "cache_write": 5.0},
                }
            },
        },
    }


def test_the_query_of_a_base_url_stays_behind_the_path():
    (azure,) = parse_model_tables(
        {"azure": table(base_url="https://x.example/openai/deployments/d/?api-version=2024-10-21")}
    )
    url = "https://x.example/openai/deployments/d/chat/completions?api-version=2024-10-21"
    assert azure.url("/chat/completions") == url


@pytest.mark.parametrize(
    ("name", "given", "complaint"),
    [
        ("Acme", table(), r"[models.Acme]: a name has up to 32 letters a-z"),
        ("acme", "x", "models.acme: must be a table: [models.acme]"),
        ("acme", table(modells=[]), "[models.acme]: there is an unknown field `modells`"),
        ("acme", {"kind": "openai"}, "[models.acme]: missing required field `base_url`"),
        ("acme", table(kind="gemini"), "[models.acme]: kind: Invalid enum value 'gemini'"),
        ("acme", table(models=[]), "[models.acme]: models: name at least one"),
        ("acme", table(models=["a", "a"]), "[models.acme]: models: one is there twice"),
        ("acme", table(models=[" a"]), "[models.acme]: models: each has 1 to 200 printable characters"),
        ("acme", table(models="a"), "[models.acme]: models: must be `array`"),
        ("acme", table(base_url="api.example"), "[models.acme]: base_url: must be a URL such as"),
        ("acme", table(base_url="ftp://a.example"), "[models.acme]: base_url: must be a URL such as"),
        ("acme", table(base_url="https://a.example/x y"), "[models.acme]: base_url: must be a URL such as"),
        ("acme", table(base_url="https://u:p@a.example"), "[models.acme]: base_url: must have no user"),
        ("acme", table(base_url="https://a.example:x"), "[models.acme]: base_url: must be a URL"),
        ("acme", table(base_url="https://a.example/#x"), "[models.acme]: base_url: must have no fragment"),
        ("acme", table(key_env="A", key_file="B"), "[models.acme]: key_env and key_file: give one of them"),
        ("acme", table(key_env=""), "[models.acme]: key_env: must not be empty"),
        ("acme", table(key_header="a b"), "[models.acme]: key_header: must be the name of a header"),
        (
            "acme",
            table(prices={"x": {"input": 1, "output": 1}}),
            "[models.acme]: prices: x is none of its models",
        ),
        ("acme", table(prices={"m": {"input": 1}}), "[models.acme]: prices: missing required field `output`"),
        ("acme", table(prices={"m": {"input": -1, "output": 1}}), "[models.acme]: prices.m: must be dollars"),
        (
            "acme",
            table(prices={"m": {"input": float("nan"), "output": 1}}),
            "[models.acme]: prices.m: must be dollars",
        ),
        ("acme", table(limits={"m": {"context": 1, "output": 2}}), "[models.acme]: limits.m: must be tokens"),
    ],
)
def test_a_wrong_table_is_named_with_what_is_wrong_in_it(name, given, complaint):
    with pytest.raises(ValueError, match=r"\[?models") as caught:
        parse_model_tables({name: given})
    assert str(caught.value).startswith(complaint)


def test_an_error_of_the_file_quotes_no_value(tmp_path):
    with pytest.raises(ConfigError) as caught:
        settings_of(
            tmp_path,
            '[models.acme]\nkind = "openai"\nkey = "sk-secret"\nbase_url = "https://a"\nmodels = ["m"]',
        )
    assert str(caught.value).endswith("[models.acme]: there is an unknown field `key`")
    assert "sk-secret" not in str(caught.value)
    with pytest.raises(ConfigError) as caught:
        settings_of(tmp_path, 'models = "sk-secret"')
    assert "must be tables: [models.NAME]" in str(caught.value)
    assert "sk-secret" not in str(caught.value)


async def test_a_server_whose_key_is_not_there_does_not_start(tmp_path, monkeypatch):
    monkeypatch.delenv("ACME_KEY", raising=False)
    settings = settings_of(tmp_path, TABLE)
    with pytest.raises(ConfigError, match=r"^\[models.acme\]: key_env: ACME_KEY is not set$"):
        async with opened_gateway(settings, None, AuditLog()):
            pass
    monkeypatch.setenv("ACME_KEY", "sk-1")
    async with opened_gateway(settings, None, AuditLog()) as gateway:
        assert gateway.catalogue.names()[0] == "acme/large"


def test_a_key_that_no_header_can_carry_is_named_and_not_shown(tmp_path, monkeypatch):
    path = tmp_path / "key"
    (of_file,) = parse_model_tables({"acme": table(key_file=str(path))})
    assert fault_of_key(of_file) == f"[models.acme]: key_file: cannot read {path}: No such file or directory"
    path.write_text("\n")
    assert fault_of_key(of_file) == f"[models.acme]: key_file: {path} is empty"
    path.write_bytes(b"\xff")
    assert fault_of_key(of_file) == f"[models.acme]: key_file: {path} is not UTF-8"
    path.write_text("sk-secret\nHost: evil")
    fault = fault_of_key(of_file)
    assert fault is not None
    assert "holds no key" in fault
    assert "sk-secret" not in fault
    path.write_text("sk-secret\n")
    assert fault_of_key(of_file) is None


def test_config_shows_names_of_tables_and_finds_a_key_that_is_missing(tmp_path, monkeypatch):
    for name in ("ACME_KEY", *(each for each in os.environ if each.startswith("RPCSHARE_"))):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rpcshare.toml").write_text(TABLE)
    arguments = ["--config", "rpcshare.toml", "--data-dir", str(tmp_path)]
    shown = CliRunner().invoke(main, ["config", "show", *arguments], prog_name="rpcshare")
    assert "acme, claude" in shown.output
    checked = CliRunner().invoke(main, ["config", "check", *arguments], prog_name="rpcshare")
    assert (checked.exit_code, checked.stderr) == (1, "[models.acme]: key_env: ACME_KEY is not set\n")
    monkeypatch.setenv("ACME_KEY", "sk-1")
    checked = CliRunner().invoke(main, ["config", "check", *arguments], prog_name="rpcshare")
    assert (checked.exit_code, checked.output) == (0, "the settings are good\n")


def test_what_models_were_asked_is_in_the_metrics():
    counts = GatewayCounts()
    counts.requests["acme/large", "ok"] += 2
    counts.refused["model"] += 1
    counts.count("acme/large", Usage(10, 5, 3, 2, cost=0.25))
    counts.count("acme/large", Usage(1, is_estimated=True))
    registry = CollectorRegistry()
    registry.register(GatewayMetrics(counts))
    text = generate_latest(registry).decode()
    for line in (
        'rpcshare_model_requests_total{model="acme/large",outcome="ok"} 2.0',
        'rpcshare_model_requests_refused_total{reason="model"} 1.0',
        'rpcshare_model_tokens_total{kind="input",model="acme/large"} 11.0',
        'rpcshare_model_tokens_total{kind="cache_read",model="acme/large"} 3.0',
        'rpcshare_model_dollars_total{model="acme/large"} 0.25',
        "rpcshare_model_usage_estimates_total 1.0",
        "rpcshare_model_requests_under_way 0.0",
    ):
        assert line in text
