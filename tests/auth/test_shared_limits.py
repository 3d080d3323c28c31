"""Limits that hold for several processes together."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from structlog.testing import capture_logs

from rpcshare.auth.allowances import Allowance, Allowances
from rpcshare.auth.audit import REFUSALS_OF_ONE, Action, AuditLog
from rpcshare.auth.caller import Caller, CallerUser, Role
from rpcshare.auth.rate_limits import SITE, SITE_FACTOR, CallerLimits, network_of
from rpcshare.auth.request_rates import RequestRates
from rpcshare.auth.shared_limits import share_limits
from rpcshare.errors import ErrorCode, ShareError
from support.inboxes import Office, until, with_office

KEY = bytes(32)
ALICE = Caller(subject="alice", address="192.0.2.1")
ADDRESS = "192.0.2.7"


@pytest.fixture
def office() -> Iterator[Office]:
    with with_office(2) as office:
        yield office


class Process:
    def __init__(self, office: Office, slot: int) -> None:
        self.limits = CallerLimits(creates=3, failed_authentications=3, connections=3, key=KEY)
        self.mailbox = office.reader(slot)
        self.audit = AuditLog()
        self.rates = RequestRates(Allowances(Allowance(requests=3)))
        share_limits(self.limits, self.rates, self.audit, self.mailbox)
        self.mailbox.start()

    def fail(self, shown: str = "wrong", address: str = ADDRESS) -> None:
        with pytest.raises(ShareError), self.limits.failures.attempt(address, shown):
            raise ShareError(ErrorCode.UNAUTHORIZED, "Unauthorized")

    def is_refused(self, shown: str, address: str = ADDRESS) -> bool:
        try:
            with self.limits.failures.attempt(address, shown):
                return False
        except ShareError:
            return True

    def failures_wait(self) -> float:
        return self.limits.failures.of_networks.wait(ADDRESS)

    def may_hold(self) -> bool:
        try:
            with self.limits.connections.hold(ALICE):
                return True
        except ShareError:
            return False


async def both(office: Office) -> tuple[Process, Process]:
    here, there = Process(office, 0), Process(office, 1)
    await until(lambda: here.mailbox.others and there.mailbox.others)
    return here, there


async def test_failures_count_at_each(office):
    here, there = await both(office)
    here.fail()
    there.fail()
    here.fail()
    await until(lambda: here.failures_wait() and there.failures_wait())
    assert here.is_refused("another guess")
    assert there.is_refused("another guess")


async def test_failures_of_one_site_count_at_each(office):
    here, there = await both(office)
    networks = [f"2001:db8:0:{n:x}::1" for n in range(3 * SITE_FACTOR)]
    for n, address in enumerate(networks):
        (here, there)[n % 2].fail(address=address)
    site = network_of(networks[0], SITE)
    await until(lambda: there.limits.failures.of_sites.wait(site))
    assert there.is_refused("another guess", "2001:db8:0:ffff::1")


async def test_what_was_right_at_one_is_let_in_at_each(office):
    here, there = await both(office)
    assert not here.is_refused("right")
    await until(lambda: there.limits.failures._known)
    for _ in range(3):
        there.fail()
    assert there.is_refused("another guess")
    assert not there.is_refused("right")


async def test_creates_count_at_each(office):
    here, there = await both(office)
    for process in (here, there, here):
        process.limits.take_create(ALICE)
    await until(lambda: there.limits.creates.wait("subject alice"))
    with pytest.raises(ShareError, match="Too many shares made: 3 a minute are allowed"):
        there.limits.take_create(ALICE)


async def test_refusals_are_told_as_often_by_all_as_by_one(office):
    here, there = await both(office)
    with capture_logs() as told:
        for n in range(REFUSALS_OF_ONE):
            (here, there)[n % 2].audit.refused(Action.CONNECT, ALICE, ErrorCode.UNAUTHORIZED)
        of_one, _ = there.audit.limits
        await until(lambda: of_one.wait(ALICE.address))
        there.audit.refused(Action.CONNECT, ALICE, ErrorCode.UNAUTHORIZED)
    assert len(told) == REFUSALS_OF_ONE


async def test_connections_count_at_each_as_long_as_they_are_open(office):
    here, there = await both(office)
    with ExitStack() as open_there:
        with here.limits.connections.hold(ALICE):
            for _ in range(2):
                open_there.enter_context(there.limits.connections.hold(ALICE))
            await until(lambda: not here.may_hold() and not there.may_hold())
        await until(there.may_hold)
        assert here.may_hold()


async def test_what_one_held_that_has_ended_counts_no_more(office):
    here, there = await both(office)
    with ExitStack() as never_closed:
        for _ in range(3):
            never_closed.enter_context(there.limits.connections.hold(ALICE))
        await until(lambda: not here.may_hold())
        office.end(there.mailbox)
        await until(here.may_hold)


async def test_a_new_process_knows_what_others_hold_however_many_they_are(office):
    here = Process(office, 0)
    callers = [Caller(subject=f"caller {n}", address="192.0.2.1") for n in range(1201)]
    with ExitStack() as stack:
        for caller in callers:
            stack.enter_context(here.limits.connections.hold(caller))
        there = Process(office, 1)
        await until(lambda: len(there.limits.connections.elsewhere.get(0, {})) == 1201)
    await until(lambda: not there.limits.connections.elsewhere[0])


async def test_requests_of_a_user_are_counted_together(office):
    here, there = await both(office)
    user = Caller("usr_1", source="user:acme", user=CallerUser("usr_1", "acme", Role.MEMBER))
    for process in (here, there, here):
        process.rates.take(user)
    await until(lambda: there.rates.used("user:usr_1") == 3)
    with pytest.raises(ShareError, match="Too many requests of this user"):
        there.rates.take(user)
