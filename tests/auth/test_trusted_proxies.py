"""What a trusted proxy says of a request: where it came from, and from whom."""

from ipaddress import ip_network

import pytest

from rpcshare.auth.caller import Scope
from rpcshare.auth.request_head import RequestHead
from rpcshare.auth.trusted_proxies import ProxySubjectVerifier, TrustedProxies
from rpcshare.errors import ErrorCode, ShareError
from support.narrowing import not_none

PROXIES = TrustedProxies([ip_network("10.0.0.0/8"), ip_network("2001:db8::/32"), ip_network("127.0.0.1")])


@pytest.mark.parametrize(
    ("peer", "forwarded", "origin"),
    [
        # Nobody else is believed.
        ("192.0.2.1", ["198.51.100.7"], "192.0.2.1"),
        ("11.0.0.1", ["198.51.100.7"], "11.0.0.1"),
        ("", ["198.51.100.7"], ""),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", [""], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.7"], "198.51.100.7"),
        # What stands left of the first that is no proxy's, the client may have written.
        ("10.0.0.1", ["1.1.1.1, 198.51.100.7"], "198.51.100.7"),
        ("10.0.0.1", ["1.1.1.1", "198.51.100.7"], "198.51.100.7"),
        ("10.0.0.1", ["1.1.1.1, 198.51.100.7, 10.0.0.2"], "198.51.100.7"),
        ("10.0.0.1", ["1.1.1.1, 198.51.100.7 ,10.0.0.2", "10.0.0.3"], "198.51.100.7"),
        ("10.0.0.1", ["10.9.9.9, 198.51.100.7"], "198.51.100.7"),
        # A client that is in the proxies' own network.
        ("10.0.0.1", ["10.0.0.9"], "10.0.0.9"),
        ("10.0.0.1", ["10.0.0.9, 10.0.0.2"], "10.0.0.9"),
        # What is no address ends the search at the last that was one.
        ("10.0.0.1", ["unknown"], "10.0.0.1"),
        ("10.0.0.1", ["1.1.1.1, unknown, 10.0.0.2"], "10.0.0.2"),
        ("10.0.0.1", ["1.1.1.1, , 10.0.0.2"], "10.0.0.2"),
        ("10.0.0.1", ["198.51.100.7\t"], "198.51.100.7"),
        # Other spellings.
        ("10.0.0.1", ["198.51.100.7:4711"], "198.51.100.7"),
        ("10.0.0.1", ["2001:DB9::0001"], "2001:db9::1"),
        ("10.0.0.1", ["[2001:db9::1]:4711"], "2001:db9::1"),
        ("10.0.0.1", ["::ffff:198.51.100.7"], "198.51.100.7"),
        ("::ffff:10.0.0.1", ["198.51.100.7"], "198.51.100.7"),
        ("2001:db8::1", ["198.51.100.7"], "198.51.100.7"),
        ("127.0.0.1", ["198.51.100.7"], "198.51.100.7"),
        ("127.0.0.2", ["198.51.100.7"], "127.0.0.2"),
    ],
)
def test_a_request_came_from_the_last_address_that_is_no_proxy_s(peer, forwarded, origin):
    assert PROXIES.origin_of(peer, forwarded) == origin


ONE_HOP = TrustedProxies(
    [ip_network("10.0.0.0/8"), ip_network("192.0.2.80"), ip_network("192.0.2.81")], hops=1
)
TWO_HOPS = TrustedProxies([ip_network("10.0.0.0/8"), ip_network("192.0.2.80")], hops=2)


@pytest.mark.parametrize(
    ("proxies", "peer", "forwarded", "origin"),
    [
        # An honest proxy adds the address of a client in its own network, who wrote what is left of it.
        (ONE_HOP, "10.0.0.1", "6.6.6.6, 10.0.0.77", "10.0.0.77"),
        (ONE_HOP, "192.0.2.80", "6.6.6.6, 10.0.0.77", "10.0.0.77"),
        (ONE_HOP, "10.0.0.1", "6.6.6.6, 10.1.1.1, 10.2.2.2, 10.0.0.77", "10.0.0.77"),
        (ONE_HOP, "10.0.0.1", "6.6.6.6, 198.51.100.7", "198.51.100.7"),
        # A proxy by itself is no client.
        (ONE_HOP, "192.0.2.80", "6.6.6.6, 198.51.100.7, 192.0.2.81", "198.51.100.7"),
        (ONE_HOP, "192.0.2.80", "6.6.6.6, 10.0.0.77, 192.0.2.81", "10.0.0.77"),
        # As many proxies as the settings say.
        (TWO_HOPS, "10.0.0.1", "6.6.6.6, 198.51.100.7, 10.0.0.2", "198.51.100.7"),
        (TWO_HOPS, "10.0.0.1", "6.6.6.6, 10.0.0.77, 10.0.0.2", "10.0.0.77"),
        (TWO_HOPS, "10.0.0.1", "6.6.6.6, 198.51.100.7", "198.51.100.7"),
    ],
)
def test_what_a_client_has_written_never_counts_even_if_it_is_in_the_proxies_network(
    proxies, peer, forwarded, origin
):
    assert proxies.origin_of(peer, [forwarded]) == origin


@pytest.mark.parametrize(
    ("network", "is_wide"),
    [
        ("10.0.0.0/8", True),
        ("10.0.0.0/23", True),
        ("10.0.0.0/24", False),
        ("10.0.0.1", False),
        ("2001:db8::/32", True),
        ("2001:db8::/64", False),
    ],
)
def test_a_network_with_room_for_more_than_proxies_is_wide(network, is_wide):
    assert bool(TrustedProxies([ip_network(network)]).wide) == is_wide


def head(*values: str, is_from_proxy: bool = True) -> RequestHead:
    return RequestHead(tuple(("x-user", value) for value in values), is_from_proxy=is_from_proxy)


@pytest.fixture
def verifier() -> ProxySubjectVerifier:
    return ProxySubjectVerifier("X-User", {Scope.CREATE, Scope.READ})


@pytest.mark.parametrize(
    ("value", "subject"),
    [
        ("alice", "alice"),
        (" alice@example.com ", "alice@example.com"),
        ("Jörg".encode().decode("latin-1"), "Jörg"),
        ("Alice Liddell", "Alice Liddell"),
    ],
)
async def test_a_proxy_names_the_caller(verifier, value, subject):
    caller = await verifier.verify(head(value))
    assert (caller.subject, caller.scopes) == (subject, {Scope.CREATE, Scope.READ})


async def test_nobody_but_a_proxy_names_the_caller(verifier):
    assert await verifier.verify(head("alice", is_from_proxy=False)) is None
    assert await verifier.verify(head("alice", "bob", is_from_proxy=False)) is None


@pytest.mark.parametrize("values", [(), ("",), (" ",), ("(null)",)])
async def test_a_proxy_may_say_that_it_knows_nobody(verifier, values):
    assert await verifier.verify(head(*values)) is None


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (("mallory", "alice"), "more than one value"),
        (("alice", "alice"), "more than one value"),
        (("", "alice"), "more than one value"),
        (("mallory, alice",), "more than one value"),
        (("n\xe9",), "must be 1 to 256 printable"),
        (("a\tb",), "must be 1 to 256 printable"),
        (("x" * 257,), "must be 1 to 256 printable"),
        (("admin",), "reserved for admins"),
    ],
)
async def test_what_cannot_be_the_name_of_one_caller_is_refused_with_the_reason(verifier, values, reason):
    with pytest.raises(ShareError, match=reason) as caught:
        await verifier.verify(head(*values))
    assert caught.value.code is ErrorCode.UNAUTHORIZED


async def test_a_proxy_whose_callers_are_admins_may_name_the_admin():
    caller = not_none(await ProxySubjectVerifier("x-user", {Scope.ADMIN}).verify(head("admin")))
    assert caller.subject == "admin"
