"""Limits of callers: what is counted, for whom, and what is refused after it."""

import pytest

from rpcshare.auth.caller import Caller
from rpcshare.auth.rate_limits import (
    SITE_FACTOR,
    CallerLimits,
    ConnectionLimit,
    FailureLimit,
    RateLimit,
    network_of,
)
from rpcshare.errors import ErrorCode, ShareError

HERE, ELSEWHERE = "192.0.2.1", "192.0.2.2"


class Clock:
    """A clock that goes on when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def wrong(failures: FailureLimit, shown: str = "wrong", address: str = HERE) -> ErrorCode:
    with pytest.raises(ShareError) as refused, failures.attempt(address, shown):
        raise ShareError(ErrorCode.UNAUTHORIZED, "Unauthorized")
    return refused.value.code


def right(failures: FailureLimit, shown: str = "right", address: str = HERE) -> None:
    with failures.attempt(address, shown):
        pass


def refused_for(failures: FailureLimit, shown: str = "right", address: str = HERE) -> float:
    with pytest.raises(ShareError) as refused:
        right(failures, shown, address)
    assert refused.value.code is ErrorCode.RATE_LIMITED
    assert refused.value.retry_after is not None
    return refused.value.retry_after


# --- so many times a minute ---------------------------------------------------------------------------


def test_a_limit_is_reached_after_so_many_and_is_over_a_minute_after_the_first(clock):
    limit = RateLimit(3, clock)
    for _ in range(3):
        limit.take("a", "calls")
        clock.now += 10
    with pytest.raises(ShareError, match="Too many calls: 3 a minute are allowed") as refused:
        limit.take("a", "calls")
    assert (refused.value.code, refused.value.retry_after) == (ErrorCode.RATE_LIMITED, 30)
    clock.now += 30
    limit.take("a", "calls")


def test_each_key_is_counted_by_itself(clock):
    limit = RateLimit(1, clock)
    limit.take("a", "calls")
    limit.take("b", "calls")
    assert limit.wait("a") == limit.wait("b") == 60


def test_a_limit_of_zero_is_none(clock):
    limit = RateLimit(0, clock)
    for _ in range(1000):
        limit.take("a", "calls")
    assert limit.wait("a") == 0


def test_of_too_many_keys_the_oldest_is_forgotten(clock):
    limit = RateLimit(1, clock, max_keys=2)
    for key in "abc":
        limit.take(key, "calls")
    assert [limit.wait(key) > 0 for key in "abc"] == [False, True, True]


# --- failures -------------------------------------------------------------------------------------------


def test_after_so_many_failures_nothing_more_is_verified_from_there(clock):
    failures = FailureLimit(2, clock)
    assert [wrong(failures), wrong(failures)] == [ErrorCode.UNAUTHORIZED] * 2
    assert refused_for(failures) == 60
    right(failures, address=ELSEWHERE)
    clock.now += 60
    right(failures)


def test_a_wrong_secret_is_a_failure_and_other_errors_are_not(clock):
    failures = FailureLimit(1, clock)
    for code in (ErrorCode.STORAGE_UNAVAILABLE, ErrorCode.FORBIDDEN):
        with pytest.raises(ShareError), failures.attempt(HERE, "x"):
            raise ShareError(code, "no")
    right(failures)
    with pytest.raises(ShareError), failures.attempt(HERE, "x"):
        raise ShareError(ErrorCode.INVALID_SECRET, "Invalid secret")
    assert refused_for(failures, "unseen") > 0


def test_what_was_right_before_goes_on_beside_somebody_who_guesses(clock):
    failures = FailureLimit(1, clock)
    right(failures, "mine")
    wrong(failures)
    right(failures, "mine")
    assert refused_for(failures, "another") > 0


def test_what_was_right_and_is_no_more_counts_like_any_other(clock):
    failures = FailureLimit(1, clock)
    right(failures, "mine")
    wrong(failures, "mine")
    assert refused_for(failures, "mine") > 0


def test_what_is_refused_does_not_make_the_wait_longer(clock):
    failures = FailureLimit(1, clock)
    wrong(failures)
    clock.now += 59
    assert refused_for(failures) == 1
    clock.now += 1
    right(failures)


def test_whoever_has_many_networks_of_one_site_has_a_bound_too(clock):
    failures = FailureLimit(2, clock)
    for network in range(2 * SITE_FACTOR):
        wrong(failures, address=f"2001:db8:1:{network:x}::1")
    assert refused_for(failures, address="2001:db8:1:ffff::1") == 60
    right(failures, address="2001:db8:2:ffff::1")


def test_nothing_that_was_shown_is_kept():
    failures = FailureLimit(1)
    right(failures, "a-very-secret-token")
    assert "a-very-secret-token" not in repr(vars(failures))


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8::1", "2001:db8::ffff:2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2", True),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("", "", True),
        ("testclient", "testclient", True),
    ],
)
def test_addresses_are_of_one_network(one, other, same):
    assert (network_of(one) == network_of(other)) is same


# --- creates and connections -----------------------------------------------------------------------------


def test_creates_are_counted_by_subject_and_without_one_by_address(clock):
    limits = CallerLimits(creates=1, clock=clock)
    limits.take_create(Caller("alice", address=HERE))
    limits.take_create(Caller("bob", address=HERE))
    limits.take_create(Caller(None, address=HERE))
    for caller in (Caller("alice", address=ELSEWHERE), Caller(None, address=HERE)):
        with pytest.raises(ShareError) as refused:
            limits.take_create(caller)
        assert refused.value.code is ErrorCode.RATE_LIMITED


def test_a_subject_that_looks_like_an_address_is_another_than_that_address(clock):
    limits = CallerLimits(creates=1, clock=clock)
    limits.take_create(Caller(HERE))
    limits.take_create(Caller(None, address=HERE))


def test_a_connection_counts_while_it_is_open():
    connections = ConnectionLimit(1)
    alice = Caller("alice")
    with connections.hold(alice):
        with connections.hold(Caller("bob")):
            pass
        with pytest.raises(ShareError) as refused, connections.hold(alice):
            pass
        assert refused.value.code is ErrorCode.RATE_LIMITED
    with connections.hold(alice):
        pass


def test_limits_that_nobody_set_are_off():
    limits = CallerLimits()
    for _ in range(100):
        limits.take_create(Caller("alice"))
        wrong(limits.failures)
    right(limits.failures, "unseen")
