"""No credential of a whole run is in anything that the run left behind, but for where it was handed out."""

import asyncio

import pytest

from access_matrix.rights import CALLERS
from access_matrix.runs import ENTRIES, MatrixRun
from access_matrix.searching import given_away, places_with, traces

pytestmark = [pytest.mark.rare, pytest.mark.timeout(900)]  # all operations of all callers, one by one


@pytest.fixture(scope="module")
def whole(run: MatrixRun) -> MatrixRun:
    """The run, when everybody has asked for everything."""
    for entry in ENTRIES:
        for caller in CALLERS:
            run.answers(entry, caller)
    return run


@pytest.mark.timeout(300)  # it may be what runs the whole matrix
def test_no_answer_holds_a_credential_but_the_one_that_hands_it_out(whole: MatrixRun) -> None:
    assert len(whole.handed.answers) > 300
    assert len(whole.handed.credentials) > 100
    assert given_away(whole.handed) == []


@pytest.mark.timeout(300)
def test_no_log_and_nothing_that_is_kept_holds_a_credential(whole: MatrixRun) -> None:
    for deployment in (whole.closed, whole.open):
        left = asyncio.run(traces(deployment))
        assert {"log", "audit log"} < left.keys()
        assert b"share.create" in left["audit log"]
        assert places_with(whole.handed.credentials, left) == []
