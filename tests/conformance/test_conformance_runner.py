"""The runner against servers that do something else than the cases ask for."""

import json
from collections.abc import Awaitable, Callable
from queue import Queue

import pytest
from websockets.asyncio.server import ServerConnection

from conformance.servers import scripted
from rpcshare.conformance.cases import (
    Abort,
    Case,
    Closed,
    Either,
    Expect,
    Interleaved,
    Send,
    SendText,
    Step,
)
from rpcshare.conformance.runner import Failure, Outcome, run_cases
from support.narrowing import not_none

pytestmark = pytest.mark.on_trio_too

Answer = Callable[[ServerConnection], Awaitable[None]]

CALL = Send(["push", ["pipeline", 0, ["square"], [4]]])
PULL = Send(["pull", 1])
RESULT = Expect(["resolve", 1, 16])


def sends(*messages: object, close: bool = False) -> Answer:
    """Return a server that sends this, whatever it hears, and then the right answer to the last call."""

    async def answer(websocket: ServerConnection) -> None:
        for message in messages:
            await websocket.send(message if isinstance(message, str) else json.dumps(message))
        if close:
            await websocket.close()
        async for text in websocket:
            if str(text).startswith('["push",["pipeline",0,["returnNumber"]'):
                number = json.loads(text)[1][3][0]
                await websocket.send(json.dumps(["resolve", number, number]))

    return answer


async def play(answer: Answer, *steps: Step, time_limit: float = 5.0) -> Failure | None:
    case = Case(id="a-case", title="A case", checks=["M-6"], over=["websocket"], steps=list(steps))
    with scripted(answer) as url:
        (outcome,) = [outcome async for outcome in run_cases(url, [case], time_limit=time_limit)]
        return outcome.failure


async def failure_of(answer: Answer, *steps: Step, time_limit: float = 5.0) -> Failure:
    return not_none(await play(answer, *steps, time_limit=time_limit))


async def test_what_is_expected_passes():
    assert await play(sends(["resolve", 1, 16]), CALL, PULL, RESULT) is None


async def test_another_message_fails_and_is_shown():
    failure = await failure_of(sends(["resolve", 1, 17]), CALL, PULL, RESULT)
    assert failure.lines() == ['expected ["resolve",1,16]', 'got      ["resolve",1,17]']


async def test_a_message_too_many_fails():
    failure = await failure_of(sends(["resolve", 1, 16], ["release", -1, 1]), CALL, PULL, RESULT)
    assert failure.got == '["release",-1,1]'


async def test_silence_fails_when_the_time_is_up():
    failure = await failure_of(sends(), CALL, PULL, RESULT, time_limit=0.05)
    assert failure.lines() == [
        'expected ["resolve",1,16]',
        "got      nothing, in all the time that a case may take",
    ]


async def test_the_end_of_the_connection_fails_where_a_message_is_due():
    failure = await failure_of(sends(close=True), CALL, PULL, RESULT)
    assert failure.got.startswith("the connection is closed")


async def test_the_end_of_the_connection_fails_at_the_end_of_a_case():
    assert await play(sends(["resolve", 1, 16], close=True), CALL, PULL, RESULT) is not None


@pytest.mark.parametrize("step", [RESULT, Closed(True), Abort(True)])
async def test_what_is_no_json_fails_whatever_is_due(step):
    failure = await failure_of(sends("nope"), CALL, step)
    assert failure.got.startswith("a message that is not JSON")


async def test_an_abort_is_a_message_and_the_end():
    aborted = ["abort", ["error", "Error", "why"]]
    assert await play(sends(aborted, close=True), SendText("nope"), Abort(True)) is None
    assert await play(sends(aborted), SendText("nope"), Abort(True), time_limit=0.05) is not None
    assert await play(sends(close=True), SendText("nope"), Abort(True)) is not None


async def test_an_end_without_a_word_is_not_an_abort():
    assert await play(sends(close=True), Closed(True)) is None
    assert await play(sends(["abort", 1], close=True), Closed(True)) is not None


async def test_sequences_may_be_mixed_but_each_keeps_its_order():
    step = Interleaved([[["a", 1], ["a", 2]], [["b", 1]]])
    for order in (
        [["a", 1], ["a", 2], ["b", 1]],
        [["a", 1], ["b", 1], ["a", 2]],
        [["b", 1], ["a", 1], ["a", 2]],
    ):
        assert await play(sends(*order), step) is None
    failure = await failure_of(sends(["a", 2], ["a", 1], ["b", 1]), step)
    assert failure.got == '["a",2]'


async def test_of_several_courses_the_one_that_the_server_takes_is_followed():
    step = Either([[Expect(["a"]), Expect(["b"])], [Expect(["c"])]])
    assert await play(sends(["a"], ["b"]), step) is None
    assert await play(sends(["c"]), step) is None
    assert (await failure_of(sends(["a"], ["c"]), step)).got == '["c"]'
    assert (await failure_of(sends(["d"]), step)).got == '["d"]'


async def test_a_number_that_the_server_chose_is_sent_back_to_it():
    heard: Queue[object] = Queue()

    async def answer(websocket: ServerConnection) -> None:
        await websocket.send('["resolve",1,["export",-7]]')
        async for text in websocket:
            heard.put(json.loads(text))

    counter = {"$id": "counter"}
    await play(
        answer,
        Expect(["resolve", 1, ["export", counter]]),
        Send(["release", counter, 1]),
        Closed(True),
        time_limit=0.2,
    )
    assert heard.get(timeout=10) == ["release", -7, 1]


async def test_a_number_stays_what_the_server_has_chosen():
    steps = [Expect(["a", {"$id": "n"}]), Expect(["b", {"$id": "n"}])]
    assert await play(sends(["a", -1], ["b", -1]), *steps) is None
    assert await play(sends(["a", -1], ["b", -2]), *steps) is not None


async def test_each_entry_that_the_case_makes_counts_for_the_call_at_its_end():
    steps: list[Step] = [
        Send(["pipe"]),
        Send(["stream", 1]),
        SendText('["push",1]'),
        SendText("nope"),
        Send(["pull", 3]),
    ]
    assert await play(sends(), *steps) is None


async def test_a_server_that_is_not_there_is_no_failed_case():
    case = Case(id="a", title="a", checks=[], over=["websocket"], steps=[])
    with scripted(sends()) as url:
        pass
    with pytest.raises(OSError, match="onnect"):
        [outcome async for outcome in run_cases(url, [case])]


async def test_the_report_of_a_failure_says_what_was_expected_and_what_came():
    case = Case(id="a", title="A", checks=["M-6"], over=["websocket"], steps=[])
    assert Outcome(case, Failure(["x"], ["y"])).report() == {
        "id": "a",
        "title": "A",
        "checks": ["M-6"],
        "passed": False,
        "expected": '["x"]',
        "got": '["y"]',
    }
