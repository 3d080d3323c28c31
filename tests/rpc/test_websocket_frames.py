"""Frames as this project reads and writes them, held against those of ``websockets``."""

import tracemalloc

import pytest
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from rpcshare.rpc.frames import FrameReader, frames_of

# A frame gives its length in 7, 16 or 64 bits.
LENGTHS = [0, 1, 125, 126, 127, 65_535, 65_536, 100_000]
SIDES = pytest.mark.parametrize("masked", [True, False], ids=["of a client", "of a server"])


def message(length: int) -> bytes:
    return bytes(number % 251 for number in range(length))


def frame(opcode: Opcode, data: bytes, *, fin: bool = True, masked: bool = True) -> bytes:
    return Frame(opcode, data, fin=fin).serialize(mask=masked)


def reader(*, masked: bool = True, max_size: int | None = None) -> FrameReader:
    return FrameReader(masked=masked, max_size=max_size)


def read(by: FrameReader, data: bytes, *, step: int) -> list[tuple[bool, bytes] | bytes]:
    return [part for at in range(0, len(data), step) for part in by.read(data[at : at + step])]


class TestRead:
    @SIDES
    @pytest.mark.parametrize("length", LENGTHS)
    def test_a_message_of_any_length(self, masked, length) -> None:
        data = frame(Opcode.BINARY, message(length), masked=masked)
        assert list(reader(masked=masked).read(data)) == [(False, message(length))]

    @SIDES
    @pytest.mark.parametrize("step", [1, 2, 3, 7, 64])
    def test_messages_however_they_are_cut(self, masked, step) -> None:
        lengths = [0, 5, 125, 126, 300]
        data = b"".join(frame(Opcode.TEXT, message(length), masked=masked) for length in lengths)
        expected = [(True, message(length)) for length in lengths]
        assert read(reader(masked=masked), data, step=step) == expected

    @SIDES
    @pytest.mark.parametrize("step", [14, 15, 997, 4096, 20_013])
    def test_long_messages_however_they_are_cut(self, masked, step) -> None:
        lengths = [16_384, 5, 70_001, 300, 65_535]
        ping = frame(Opcode.PING, b"", masked=masked)
        data = b"".join(frame(Opcode.TEXT, message(each), masked=masked) + ping for each in lengths)
        expected = [part for each in lengths for part in ((True, message(each)), ping)]
        assert read(reader(masked=masked), data, step=step) == expected

    @SIDES
    @pytest.mark.parametrize("length", [14, 15, 16, 17, 1000, 20_003])
    def test_what_has_arrived_of_a_message_can_be_left_to_others(self, masked, length) -> None:
        data = frame(Opcode.TEXT, message(70_000), masked=masked)[:length]
        for step in (1, 14, 6_001):
            reading = reader(masked=masked)
            assert read(reading, data, step=step) == []
            assert reading.held_size == length
            assert reading.take_messages(frame(Opcode.TEXT, b"next"), [], text=True) == 0
            assert reading.take_rest() == data
            assert reading.held_size == 0

    @pytest.mark.parametrize("step", [1, 1000])
    def test_leaves_every_other_frame_to_others_in_its_place(self, step) -> None:
        ping, close = frame(Opcode.PING, b"are you there?"), frame(Opcode.CLOSE, b"")
        first, last = frame(Opcode.TEXT, b"one ", fin=False), frame(Opcode.CONT, b"message")
        whole = frame(Opcode.TEXT, b"whole")
        data = b"".join([whole, ping, first, ping, last, whole, close])
        expected = [(True, b"whole"), ping, first, ping, last, (True, b"whole"), close]
        assert read(reader(), data, step=step) == expected

    @pytest.mark.parametrize("text", [True, False])
    @SIDES
    def test_whole_messages_are_taken_at_once_as_far_as_they_go(self, masked, text) -> None:
        lengths = [0, 5, 125, 126, 127, 300, 16_383]
        data = b"".join(frame(Opcode.BINARY, message(length), masked=masked) for length in lengths)
        others = [
            frame(Opcode.PING, b"", masked=masked),
            frame(Opcode.BINARY, b"begun", fin=False, masked=masked),
            frame(Opcode.BINARY, message(20_000), masked=masked),
            frame(Opcode.BINARY, message(70_000), masked=masked),
            frame(Opcode.BINARY, message(200), masked=not masked),
            frame(Opcode.BINARY, message(200), masked=masked)[:-1],
            frame(Opcode.BINARY, message(200), masked=masked)[:3],
            frame(Opcode.BINARY, message(2), masked=masked)[:1],
        ]
        for other in [*others, *([] if text else [frame(Opcode.TEXT, b"text", masked=masked)])]:
            taken: list[bytes | str] = []
            assert reader(masked=masked).take_messages(data + other, taken, text=text) == len(data)
            assert taken == [message(length) for length in lengths]

    def test_nothing_is_taken_at_once_behind_what_is_not_whole(self) -> None:
        begun, whole = frame(Opcode.TEXT, b"begun", fin=False), frame(Opcode.TEXT, b"whole")
        reading, held = reader(), reader()
        assert list(reading.read(begun)) == [begun]
        assert list(held.read(whole[:-1])) == []
        for each in (reading, held):
            assert each.take_messages(whole, [], text=True) == 0

    def test_no_longer_message_is_taken_at_once_than_is_waited_for(self) -> None:
        data = frame(Opcode.TEXT, message(300))
        for most, size in ((299, 0), (300, len(data))):
            assert reader(max_size=most).take_messages(data, [], text=True) == size

    def test_a_message_within_another_is_a_mistake_for_others_to_find(self) -> None:
        begun, whole = frame(Opcode.BINARY, b"begun", fin=False), frame(Opcode.TEXT, b"whole")
        assert list(reader().read(begun + whole)) == [begun, whole]

    @pytest.mark.parametrize(
        "wrong",
        [frame(Opcode.TEXT, b"text", masked=False), b"\xc1\x84maskfour", b"\x83\x84maskfour"],
        ids=["not masked", "a reserved bit", "a reserved opcode"],
    )
    def test_a_frame_that_is_wrong_is_for_others_to_refuse(self, wrong) -> None:
        assert b"".join(part for part in reader().read(wrong + bytes(8)) if isinstance(part, bytes))

    def test_a_message_over_the_limit_is_not_waited_for(self) -> None:
        data = frame(Opcode.BINARY, message(70_001))
        assert list(reader(max_size=70_000).read(data[:20])) == [data[:20]]
        assert list(reader(max_size=70_001).read(data[:20])) == []

    def test_a_message_in_many_small_pieces_takes_little_more_memory_than_its_bytes(self) -> None:
        data = frame(Opcode.BINARY, message(40_000))
        pieces = (data[at : at + 2] for at in range(0, len(data), 2))
        reading = reader()
        tracemalloc.start()
        try:
            while reading.held_size < 38_000:
                assert list(reading.read(next(pieces))) == []
            held, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert held < 2 * 40_000
        assert [part for piece in pieces for part in reading.read(piece)] == [(False, message(40_000))]

    def test_gives_back_what_has_arrived_of_a_frame(self) -> None:
        data = frame(Opcode.TEXT, message(500))
        begun = reader()
        assert list(begun.read(data[:100])) == []
        assert begun.take_rest() == data[:100]
        assert begun.take_rest() == b""


class TestWritten:
    @pytest.mark.parametrize("text", [True, False])
    @SIDES
    def test_is_what_websockets_reads(self, masked, text) -> None:
        if masked:
            peer: ServerProtocol | ClientProtocol = ServerProtocol(state=State.OPEN, max_size=None)
        else:
            peer = ClientProtocol(parse_uri("ws://localhost"), state=State.OPEN, max_size=None)
        messages = [message(length) for length in LENGTHS]
        peer.receive_data(frames_of(messages, text=text, masked=masked))
        frames = [event for event in peer.events_received() if isinstance(event, Frame)]
        assert [bytes(each.data) for each in frames] == messages
        assert {each.opcode for each in frames} == {Opcode.TEXT if text else Opcode.BINARY}
        assert peer.parser_exc is None

    def test_no_two_masks_are_the_same(self) -> None:
        one, other = (frames_of([bytes(64)], text=False, masked=True) for _ in range(2))
        assert one != other
