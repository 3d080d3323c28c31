"""The audit log: what a line tells, what it never holds, and what becomes of a flood."""

import json

import pytest
import structlog
from structlog.testing import capture_logs

from rpcshare.auth.audit import REFUSALS_IN_ALL, REFUSALS_OF_ONE, Action, AuditLog
from rpcshare.auth.caller import Caller
from rpcshare.errors import ErrorCode, ShareError

ALICE = Caller("alice", address="192.0.2.1")


@pytest.fixture(autouse=True)
def _unconfigured():
    structlog.reset_defaults()


@pytest.fixture
def lines():
    with capture_logs() as captured:
        yield captured


def test_a_line_tells_who_did_what_with_which_share(lines):
    AuditLog().done(Action.SHARE_CREATE, ALICE, share="9eiXoPTK")
    (line,) = lines
    assert line.pop("time").endswith("+00:00")
    assert line == {
        "event": "audit",
        "log_level": "info",
        "action": "share.create",
        "outcome": "ok",
        "subject": "alice",
        "address": "192.0.2.1",
        "share": "9eiXoPTK",
    }


def test_what_was_refused_or_failed_is_a_warning(lines):
    audit = AuditLog()
    audit.done(Action.SHARE_CREATE, ALICE)
    audit.refused(Action.SHARE_CREATE, ALICE, ErrorCode.FORBIDDEN)
    audit.failed(Action.SHARE_CREATE, ALICE, ErrorCode.STORAGE_UNAVAILABLE)
    assert [line["log_level"] for line in lines] == ["info", "warning", "warning"]


def test_details_are_names_beside_the_fields_that_every_line_has(lines):
    AuditLog().done(Action.KEY_CREATE, ALICE, key="k1")
    assert (lines[0]["action"], lines[0]["key"]) == ("key.create", "k1")


@pytest.mark.parametrize(
    "code",
    [ErrorCode.UNAUTHORIZED, ErrorCode.FORBIDDEN, ErrorCode.INVALID_SECRET, ErrorCode.RATE_LIMITED],
)
def test_a_refusal_tells_its_reason(lines, code):
    with pytest.raises(ShareError), AuditLog().refusals(Action.SHARE_SYNC, ALICE, share="9eiXoPTK"):
        raise ShareError(code, "a message")
    assert (lines[0]["outcome"], lines[0]["reason"]) == ("refused", code.value)


def test_what_is_wrong_otherwise_is_no_refusal(lines):
    with pytest.raises(ShareError), AuditLog().refusals(Action.SHARE_SYNC, ALICE):
        raise ShareError(ErrorCode.INVALID_ARGUMENT, "a message")
    assert not lines


@pytest.mark.parametrize("name", ["a\nb", "a\x1b[31m", "a" * 1000, "a\u2028", "\x9b"])
def test_a_name_cannot_forge_a_line_or_fill_the_disk(lines, name):
    AuditLog().done(Action.SHARE_DELETE, Caller(name, address=name), share=name)
    for field in ("subject", "address", "share"):
        assert len(lines[0][field]) <= 288
        assert not {"\n", "\x1b", "\x9b", "\u2028"} & set(lines[0][field])


def test_what_is_no_share_id_is_not_told_as_one(lines):
    AuditLog().refused(Action.SHARE_READ, ALICE, ErrorCode.FORBIDDEN, share="Bearer secret")
    assert lines[0]["share"] == ""


def test_a_flood_of_refusals_from_one_network_is_cut_short_and_counted(lines):
    now = [0.0]
    audit = AuditLog(lambda: now[0])
    for _ in range(REFUSALS_OF_ONE + 5):
        audit.refused(Action.AUTHENTICATE, ALICE, ErrorCode.UNAUTHORIZED)
    assert len(lines) == REFUSALS_OF_ONE
    audit.refused(Action.AUTHENTICATE, Caller(None, address="198.51.100.1"), ErrorCode.UNAUTHORIZED)
    assert lines[-1]["leftOut"] == 5
    now[0] = 60
    audit.refused(Action.AUTHENTICATE, ALICE, ErrorCode.UNAUTHORIZED)
    assert lines[-1]["address"] == ALICE.address
    assert "leftOut" not in lines[-1]


def test_a_flood_from_everywhere_is_cut_short_too(lines):
    audit = AuditLog(lambda: 0.0)
    for number in range(REFUSALS_IN_ALL + 5):
        caller = Caller(None, address=f"10.{number // 250}.0.{number % 250}")
        audit.refused(Action.AUTHENTICATE, caller, ErrorCode.UNAUTHORIZED)
    assert len(lines) == REFUSALS_IN_ALL
    audit.close()
    assert (lines[-1]["action"], lines[-1]["leftOut"]) == ("refusals", 5)


def test_what_is_done_is_told_however_often(lines):
    audit = AuditLog(lambda: 0.0)
    for _ in range(2 * REFUSALS_IN_ALL):
        audit.done(Action.SHARE_CREATE, ALICE, share="9eiXoPTK")
    assert len(lines) == 2 * REFUSALS_IN_ALL


def test_a_line_can_be_written_as_json(lines):
    AuditLog().done(Action.SHARE_CREATE, Caller("zo\u00eb"), share="9eiXoPTK")
    assert json.loads(json.dumps(lines[0]))["subject"] == "zo\u00eb"
