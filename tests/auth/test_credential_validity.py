"""The standing of a credential, as long as it holds and when it ends."""

import asyncio
import time

from rpcshare.auth.credential_validity import CredentialValidity


async def test_whoever_waits_hears_of_the_end_once():
    standing, heard = CredentialValidity(), []
    standing.on_end(lambda: heard.append("one"))
    standing.on_end(lambda: heard.append("other"))
    standing.end()
    standing.end()
    assert heard == ["one", "other"]
    assert standing.is_over


async def test_a_request_that_was_taken_back_is_not_answered():
    standing, heard = CredentialValidity(), []
    take_back = standing.on_end(lambda: heard.append("one"))
    take_back()
    standing.end()
    assert heard == []


async def test_it_ends_by_itself_when_it_expires():
    standing, heard = CredentialValidity(time.time() + 0.05), asyncio.Event()
    standing.on_end(heard.set)
    assert not standing.is_over
    await asyncio.wait_for(heard.wait(), 5)
    assert standing.is_over


async def test_who_asks_after_the_end_hears_of_it():
    standing, heard = CredentialValidity(time.time() - 1), asyncio.Event()
    assert standing.is_over
    standing.on_end(heard.set)
    await asyncio.wait_for(heard.wait(), 5)


async def test_two_together_hold_as_long_as_both_do():
    one, other, heard = CredentialValidity(), CredentialValidity(), []
    both = one & other
    both.on_end(lambda: heard.append("end"))
    assert not both.is_over
    other.end()
    one.end()
    assert heard == ["end"]
    assert both.is_over


async def test_a_request_to_two_together_can_be_taken_back():
    one, other, heard = CredentialValidity(), CredentialValidity(), []
    take_back = (one & other).on_end(lambda: heard.append("end"))
    take_back()
    one.end()
    assert heard == []


async def test_it_ends_soon_when_the_clock_is_set_forward(monkeypatch):
    monkeypatch.setattr("rpcshare.auth.credential_validity._LOOK_EVERY", 0.01)
    standing, heard = CredentialValidity(time.time() + 3600), asyncio.Event()
    standing.on_end(heard.set)
    real = time.time
    monkeypatch.setattr("time.time", lambda: real() + 7200)
    assert standing.is_over
    await asyncio.wait_for(heard.wait(), 5)


async def test_a_clock_that_is_set_back_gives_it_no_more_time(monkeypatch):
    standing, heard = CredentialValidity(time.time() + 0.05), asyncio.Event()
    standing.on_end(heard.set)
    real = time.time
    monkeypatch.setattr("time.time", lambda: real() - 7200)
    await asyncio.wait_for(heard.wait(), 5)
    assert standing.is_over


async def test_nothing_waits_for_a_standing_that_nobody_asks_about():
    standing = CredentialValidity(time.time() + 3600)
    for _ in range(3):
        standing.on_end(lambda: None)()
    assert standing._timer is None
