"""What is done on the command line is in the audit log, if there is a file for it."""

import json
import logging
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from click.testing import CliRunner

from rpcshare.cli import main
from support.running_server import RPCSHARE, RunningServer, bare_environment

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def log(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LOGNAME", "operator")
    monkeypatch.setenv("RPCSHARE_AUDIT_LOG", "audit.log")
    return tmp_path / "audit.log"


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in ("", "rpcshare.audit")]
    before = [(each.handlers[:], each.level, each.propagate) for each in loggers]
    yield
    for logger, (handlers, level, propagate) in zip(loggers, before, strict=True):
        logger.handlers[:], logger.level, logger.propagate = handlers, level, propagate
    structlog.reset_defaults()


def run(*arguments: str, status: int = 0) -> str:
    result = CliRunner().invoke(main, arguments, prog_name="rpcshare")
    assert result.exit_code == status, result.output
    return result.stdout.strip()


def test_each_change_is_a_line_by_the_user_of_the_machine(log: Path) -> None:
    key = run("keys", "create", "ci")
    key_id = key.split("_")[1]
    rotated = run("keys", "rotate", key_id)
    new_id = rotated.split("_")[1]
    run("keys", "revoke", new_id)
    token = run("token", "create", "--subject", "alice")
    run("certs", "init")
    run("certs", "init")  # the second time, there is nothing to do
    run("certs", "issue", "laptop")
    serial = run("certs", "revoke", "laptop").split()[0]
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    common = {"outcome": "ok", "subject": "operator", "address": "", "share": ""}
    for line in lines:
        del line["time"]
    serial_of_server = lines[5]["serial"]
    assert lines == [
        {"action": "key.create", **common, "key": key_id},
        {"action": "key.rotate", **common, "key": key_id, "newKey": new_id},
        {"action": "key.revoke", **common, "key": new_id},
        {"action": "token.create", **common, "name": "alice"},
        {"action": "authority.create", **common},
        {"action": "certificate.issue", **common, "name": "server", "serial": serial_of_server},
        {"action": "certificate.issue", **common, "name": "laptop", "serial": serial},
        {"action": "certificate.revoke", **common, "name": "laptop", "serial": serial},
    ]
    assert not any(credential in log.read_text() for credential in (key, rotated, token))


def test_what_changes_nothing_is_no_line(log: Path) -> None:
    run("keys", "create", "ci")
    run("keys", "list")
    assert len(log.read_text().splitlines()) == 1


def test_without_a_file_nothing_is_told(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RPCSHARE_AUDIT_LOG")
    result = CliRunner().invoke(main, ["keys", "create", "ci"], prog_name="rpcshare")
    assert result.exit_code == 0
    assert "audit" not in result.output
    assert not log.exists()


def test_a_file_that_cannot_be_written_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RPCSHARE_AUDIT_LOG", "missing/audit.log")
    result = CliRunner().invoke(main, ["keys", "create", "ci"], prog_name="rpcshare")
    assert result.exit_code == 1
    assert "cannot be written: No such file or directory" in result.stderr


def test_a_push_makes_no_right_to_read_that_nobody_asked_for(tmp_path: Path) -> None:
    with RunningServer(tmp_path / "data", "--anonymous-create", "--log-format=json") as server:
        session = tmp_path / "session.jsonl"
        session.write_text('{"type":"session","data":{"id":"ses_of_a_push_000001","title":"One"}}\n')
        for token in (server.token, ""):
            command = [RPCSHARE, "push", str(session), "--private", f"--url={server.url}"]
            env = bare_environment(**({"RPCSHARE_TOKEN": token} if token else {}))
            subprocess.run(command, check=True, env=env, capture_output=True)
        server.stop()
        log = server.log.read_text()
    assert "share.create" in log
    assert "view_token.create" not in log
    assert "refused" not in log
