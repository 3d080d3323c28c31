"""What is kept of a share's password, and how one is verified."""

import asyncio

import pytest

from rpcshare.auth.passwords import Passwords
from rpcshare.errors import ErrorCode, ShareError


async def test_the_right_password_is_told_from_a_wrong_one() -> None:
    passwords = Passwords()
    kept = await passwords.hash("correct horse")
    assert await passwords.is_right("correct horse", kept)
    assert not await passwords.is_right("Correct horse", kept)


async def test_what_is_kept_is_salted_and_says_how_it_was_made() -> None:
    passwords = Passwords()
    one, other = await passwords.hash("same"), await passwords.hash("same")
    assert one != other
    assert one.startswith("scrypt$32768$8$3$")
    assert "same" not in one


async def test_what_was_kept_with_other_parameters_is_verified_with_those() -> None:
    # RFC 7914, section 12: scrypt of "password" with the salt "NaCl", cut to 32 bytes.
    kept = "scrypt$1024$8$16$TmFDbA==$/bq+HJ00cgB4VucZDQHp/nxq18vII3gw53N2Y0s3MWI="
    assert await Passwords().is_right("password", kept)
    assert not await Passwords().is_right("Password", kept)


async def test_one_too_long_to_be_right_is_wrong_without_any_work() -> None:
    assert not await Passwords().is_right("x" * 257, "scrypt$32768$8$3$AAAA$AAAA")


async def test_only_so_many_wait_for_an_answer() -> None:
    passwords = Passwords()
    kept = await passwords.hash("right")
    guesses = [asyncio.create_task(passwords.is_right(f"guess {n}", kept)) for n in range(16)]
    await asyncio.sleep(0)
    with pytest.raises(ShareError) as refused:
        await passwords.is_right("right", kept)
    assert refused.value.code is ErrorCode.RATE_LIMITED
    assert refused.value.retry_after
    for guess in guesses:
        guess.cancel()
    await asyncio.gather(*guesses, return_exceptions=True)
    assert await passwords.is_right("right", kept)
