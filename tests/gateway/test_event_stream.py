"""Server-sent events that arrive in pieces."""

import pytest

from rpcshare.gateway import event_stream
from rpcshare.gateway.event_stream import EventReader

TEXT = (
    'data: {"a":"é𝄞"}\n\n: keep-alive\n\nevent: x\r\nid: 7\r\ndata: one\r\ndata:two\r\n\r\n'
    "data\rdata: z\r\rdata: [DONE]\n\n"
)
EVENTS = ['{"a":"é𝄞"}'.encode(), b"one\ntwo", b"\nz", b"[DONE]"]


def read(reader: EventReader, pieces: list[bytes]) -> list[bytes]:
    return [found for piece in pieces for found in reader.feed(piece)]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 1000])
def test_events_are_the_same_however_they_are_cut(size):
    data = TEXT.encode()
    reader = EventReader()
    assert read(reader, [data[at : at + size] for at in range(0, len(data), size)]) == EVENTS
    assert reader.is_between_events


def test_a_byte_order_mark_at_the_beginning_is_no_part_of_a_field():
    assert read(EventReader(), [b"\xef\xbb", b"\xbfdata: a\n\n"]) == [b"a"]


def test_it_knows_whether_an_event_has_ended():
    reader = EventReader()
    seen = []
    for piece in (b"data: a", b"\n", b"\n", b": comm", b"ent\n", b"\n"):
        reader.feed(piece)
        seen.append(reader.is_between_events)
    assert seen == [False, False, True, False, True, True]


def test_an_event_that_is_too_long_is_passed_over_and_not_kept(monkeypatch):
    monkeypatch.setattr(event_stream, "LONGEST", 100)
    reader = EventReader()
    assert read(reader, [b"data: "] + [b"x" * 50] * 10 + [b"\n\n", b"data: a\n\n"]) == [b"a"]
    assert read(reader, [b"data: x\n"] * 50 + [b"\n"]) == []
    assert read(reader, [b"data: b\n\n"]) == [b"b"]
