"""A peer that sends anything at all: a short run of what ``make fuzz`` does at length."""

import gc
import math

import pytest

from fuzz.fuzzer import ENCODINGS, Fuzzer


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.slow
@pytest.mark.slow
async def test_spoilt_messages_harm_nothing_but_their_session(encoding: str) -> None:
    # How long a message takes is for the long run to say: here other tests share the machine.
    fuzzer = Fuzzer(encoding, seed=1, message_time=math.inf)
    await fuzzer.run(500)
    gc.collect()
    objects = len(gc.get_objects())
    await fuzzer.run(2000)
    gc.collect()
    assert fuzzer.findings.faults == []
    assert fuzzer.findings.aborted > 100
    assert len(fuzzer.sessions) == 0
    # What every session left behind would be more than one object each; the last error may have many frames.
    assert len(gc.get_objects()) < objects + fuzzer.findings.sessions


@pytest.mark.parametrize("encoding", ENCODINGS)
async def test_the_dialogues_that_are_spoilt_are_good_themselves(encoding: str) -> None:
    fuzzer = Fuzzer(encoding, seed=1, message_time=math.inf)
    await fuzzer.hold_good_session()
    assert fuzzer.findings.faults == []
