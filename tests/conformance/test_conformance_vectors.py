"""The cases themselves: what they cover, and that what they refer to is there."""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from rpcshare.conformance.cases import (
    Abort,
    Case,
    Closed,
    Either,
    Expect,
    Interleaved,
    Send,
    Step,
    load_cases,
)

ROOT = Path(__file__).parents[2]
VECTORS = ROOT / "rpcshare" / "conformance" / "vectors"
CASES = load_cases()

MESSAGES = ["push", "pull", "resolve", "reject", "release", "stream", "pipe", "abort"]
FORMS = [
    "undefined",
    "inf",
    "-inf",
    "nan",
    "bigint",
    "date",
    "bytes",
    "error",
    "url",
    "headers",
    "request",
    "response",
    "blob",
    "import",
    "pipeline",
    "export",
    "promise",
    "writable",
    "readable",
    "remap",
]


def steps_of(steps: list[Step]) -> Iterator[Step]:
    for step in steps:
        if isinstance(step, Either):
            for course in step.either:
                yield from steps_of(course)
        else:
            yield step


def messages(case: Case, direction: str) -> Iterator[list[object]]:
    for step in steps_of(case.steps):
        if direction == "out" and isinstance(step, Send):
            yield step.send
        elif direction == "in" and isinstance(step, Expect):
            yield step.expect
        elif direction == "in" and isinstance(step, Interleaved):
            yield from (message for sequence in step.interleaved for message in sequence)
        elif direction == "in" and isinstance(step, Abort):
            yield ["abort"]


def tags(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        for item in value.values():
            yield from tags(item)
    elif isinstance(value, list):
        if value and isinstance(value[0], str):
            yield value[0]
        for item in value:
            yield from tags(item)


def test_the_ids_are_unique_and_fit_for_a_command_line():
    assert [id_ for id_, count in Counter(case.id for case in CASES).items() if count > 1] == []
    assert [case.id for case in CASES if not re.fullmatch(r"[a-z0-9-]+", case.id)] == []


def test_there_are_enough_cases_over_each_transport():
    assert len([case for case in CASES if "websocket" in case.over]) >= 80
    assert len([case for case in CASES if "http" in case.over]) >= 20
    assert {way for case in CASES for way in case.over} == {"websocket", "http"}


def test_every_rule_that_a_case_checks_is_in_the_protocol():
    rules = set(re.findall(r"\*\*\[([A-Z]-\d+)\]\*\*", (ROOT / "PROTOCOL.md").read_text()))
    assert {rule for case in CASES for rule in case.checks} - rules == set()
    assert [case.id for case in CASES if not case.checks] == []


@pytest.mark.parametrize("kind", MESSAGES)
def test_every_message_is_sent_and_received(kind):
    assert any(message[:1] == [kind] for case in CASES for message in messages(case, "out"))
    assert any(message[:1] == [kind] for case in CASES for message in messages(case, "in"))


@pytest.mark.parametrize("form", FORMS)
def test_every_expression_is_sent(form):
    assert any(form in tags(message[1:]) for case in CASES for message in messages(case, "out"))


@pytest.mark.parametrize("form", sorted({*FORMS} - {"remap"}))
def test_every_expression_that_the_target_can_produce_is_received(form):
    assert any(form in tags(message[1:]) for case in CASES for message in messages(case, "in"))


def test_a_case_over_http_needs_no_answer_before_it_has_said_everything():
    for case in CASES:
        if "http" in case.over:
            expecting = [not isinstance(step, Send) for step in case.steps]
            assert expecting == sorted(expecting), case.id


def test_nothing_is_expected_of_a_session_that_has_ended():
    for case in CASES:
        assert not any(isinstance(step, Abort | Closed) for step in case.steps[:-1]), case.id


def test_what_the_document_says_of_steps_and_placeholders_is_what_there_is():
    document = (VECTORS / "README.md").read_text()
    described = set(re.findall(r'^\| `\{"(\$?\w+)"', document, re.MULTILINE))
    texts = "".join(path.read_text() for path in VECTORS.glob("*.json"))
    used = set(re.findall(r'\{"(\$\w+)"', texts)) | set(re.findall(r'^ {8}\{"(\w+)"', texts, re.MULTILINE))
    assert used <= described
