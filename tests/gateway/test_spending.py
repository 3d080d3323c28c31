"""A budget that many requests at once do not overrun."""

import asyncio
from pathlib import Path

import pytest

from gateway.gateway_fixtures import Gateway, Sessions
from gateway.scripted_provider import ScriptedProvider, json_answer
from rpcshare.auth.caller import Caller
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.gateway.metering import Usage
from rpcshare.gateway.spending import Spending
from support.waiting import others


async def refused(spending: Spending) -> None:
    with pytest.raises(ShareError) as caught:
        await spending.admit()
    assert caught.value.code is ErrorCode.FORBIDDEN


async def test_without_a_budget_all_are_let_through():
    spending = Spending()
    for _ in range(50):
        await spending.admit()
    assert spending.in_flight == 50
    await spending.charge(Usage(10**6, 10**6, cost=10**6))
    assert not spending.is_spent


@pytest.mark.parametrize("budget", [{"dollars": 1.0}, {"tokens": 100}])
async def test_a_spent_budget_lets_nothing_through(budget):
    spending = Spending(**budget)
    await spending.admit()
    await spending.charge(Usage(60, 39, cost=0.99))
    await spending.admit()
    await spending.charge(Usage(1, 0, cost=0.01))
    assert spending.is_spent
    await refused(spending)


async def test_what_was_spent_before_counts():
    await refused(Spending(tokens=100, spent=Usage(100)))


async def test_fifty_at_once_overrun_it_by_no_more_than_one():
    spending = Spending(dollars=1.0)
    await spending.admit()
    await spending.charge(Usage(cost=0.3))
    sent = 0

    async def ask() -> None:
        nonlocal sent
        await spending.admit()
        sent += 1
        await asyncio.sleep(0.01)
        await spending.charge(Usage(cost=0.3))

    outcomes = await asyncio.gather(*(ask() for _ in range(50)), return_exceptions=True)
    assert sent == 3
    assert sum(isinstance(each, ShareError) for each in outcomes) == 47
    assert spending.spent_dollars == pytest.approx(1.2)
    assert spending.in_flight == 0


async def test_fifty_at_once_through_the_gateway_overrun_it_by_no_more_than_one(
    provider: ScriptedProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Budgeted(Sessions):
        spending = Spending(dollars=0.01)  # what three answers cost, and a part of the fourth

        async def admit(self, session_id: str | None, model: str) -> Caller:
            await self.spending.admit()
            return await super().admit(session_id, model)

        async def charge(self, session_id: str | None, model: str, usage: Usage) -> None:
            await super().charge(session_id, model, usage)
            await self.spending.charge(usage)

    usage = {"prompt_tokens": 500, "completion_tokens": 100}  # 0.003 dollars
    provider.answers(json_answer({"choices": [], "usage": usage}))
    sessions = Budgeted()
    async with Gateway(provider, tmp_path, monkeypatch, sessions=sessions) as gateway:
        answers = await asyncio.gather(*(gateway.chat() for _ in range(50)))
    statuses = sorted(each.status_code for each in answers)
    # Those beyond what a sandbox may have under way are told to come again.
    assert statuses.count(200) == len(provider.asked) == 4
    assert statuses.count(403) == 28
    assert statuses.count(429) == 18
    assert sessions.spending.spent_dollars == pytest.approx(0.012)
    assert sessions.spending.in_flight == 0


async def test_the_first_goes_alone_and_the_others_follow_it():
    spending = Spending(tokens=10_000)
    await spending.admit()
    waiting = [asyncio.create_task(spending.admit()) for _ in range(3)]
    await others()
    assert spending.in_flight == 1
    await spending.charge(Usage(10))
    await asyncio.gather(*waiting)
    assert spending.in_flight == 3


async def test_a_request_that_has_failed_teaches_nothing():
    spending = Spending(tokens=100)
    await spending.admit()
    await spending.charge(Usage())
    await spending.admit()
    second = asyncio.create_task(spending.admit())
    await others()
    assert not second.done()
    await spending.change(dollars=None, tokens=None)
    await second


async def test_who_waits_and_goes_away_is_not_in_flight():
    spending = Spending(tokens=100)
    await spending.admit()
    waiting = asyncio.create_task(spending.admit())
    await others()
    waiting.cancel()
    await asyncio.wait([waiting])
    assert spending.in_flight == 1
