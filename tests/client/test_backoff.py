"""Delays between attempts."""

import random

import pytest

from rpcshare.client.backoff import Backoff


@pytest.fixture
def longest_jitter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "uniform", lambda _low, high: high)


@pytest.mark.usefixtures("longest_jitter")
def test_delays_double_up_to_the_longest() -> None:
    backoff = Backoff()
    delays = [backoff.after_failure() for _ in range(12)]
    assert delays[:4] == [0.1, 0.2, 0.4, 0.8]
    assert delays[-2:] == [30.0, 30.0]


def test_delays_are_anywhere_below_their_bound() -> None:
    delays = [Backoff(first=1.0).after_failure() for _ in range(400)]
    assert min(delays) < 0.1
    assert 0.9 < max(delays) <= 1.0


@pytest.mark.usefixtures("longest_jitter")
def test_a_connection_that_lasted_begins_the_delays_anew() -> None:
    backoff = Backoff(lasting=10.0)
    for _ in range(5):
        backoff.after_failure()
    assert backoff.after_connection(lasted=10.0) == 0.1
    assert backoff.after_failure() == 0.2


@pytest.mark.usefixtures("longest_jitter")
def test_a_connection_that_did_not_last_counts_as_a_failure() -> None:
    backoff = Backoff(lasting=10.0)
    assert [backoff.after_failure(), backoff.after_connection(lasted=9.9)] == [0.1, 0.2]


def test_a_server_that_asks_for_more_time_gets_it() -> None:
    assert Backoff().after_failure(retry_after=7.0) == 7.0


@pytest.mark.usefixtures("longest_jitter")
def test_the_delay_stays_the_longest_however_often_it_fails() -> None:
    backoff = Backoff()
    for _ in range(5_000):
        backoff.after_failure()
    assert backoff.after_failure() == 30.0
