"""How much of a stream is on its way: enough to fill the link, and no more than a slow reader can bear."""

import asyncio
import heapq
import itertools
from collections.abc import AsyncIterator

import pytest
from delaying_proxy import slow_link
from links import memory_link, websocket_link

from rpcshare.rpc import Connection, ReadableStream, RpcTarget, WritableStream, rpc_method, streams
from rpcshare.rpc.flow import INITIAL_WINDOW, MAX_WINDOW, MIN_WINDOW, FlowWindow, Sent
from support.waiting import eventually

CHUNK = 16 * 1024


class ModelledLink:
    """A writer that never tires, a link, and a reader, in virtual time.

    Args:
        rate: bytes a second that the link carries.
        round_trip: seconds from the writer to the reader and back, without any queue.
        read_rate: bytes a second that the reader deals with; acknowledgements come when it has.
    """

    def __init__(
        self, *, rate: float, round_trip: float, read_rate: float = 1e12, chunk: int = CHUNK
    ) -> None:
        self.now = 0.0
        self.rate = rate
        self.read_rate = read_rate
        self.flow = FlowWindow(clock=lambda: self.now)
        self.peak = 0
        self.delivered = 0
        self._round_trip = round_trip
        self._chunk = chunk
        self._link_free_at = 0.0
        self._reader_free_at = 0.0
        self._acknowledgements: list[tuple[float, int, object]] = []
        self._order = itertools.count()

    def run(self, seconds: float) -> float:
        """Let the writer write for so long, and return the bytes a second that arrived."""
        end, before = self.now + seconds, self.delivered
        while self.now < end:
            while not self.flow.is_full:
                self._send()
            self.now, _, sent = heapq.heappop(self._acknowledgements)
            self.delivered += self._chunk
            self.flow.acknowledge(sent)  # type: ignore[arg-type]  # what send() returned
        return (self.delivered - before) / seconds

    def _send(self) -> None:
        sent = self.flow.send(self._chunk)
        self.peak = max(self.peak, self.flow.in_flight)
        self._link_free_at = max(self.now, self._link_free_at) + self._chunk / self.rate
        arrived = self._link_free_at + self._round_trip / 2
        self._reader_free_at = max(arrived, self._reader_free_at) + self._chunk / self.read_rate
        acknowledged = self._reader_free_at + self._round_trip / 2
        heapq.heappush(self._acknowledgements, (acknowledged, next(self._order), sent))


class TestTheWindow:
    @pytest.mark.parametrize("megabytes_a_second", [1, 10, 300])
    @pytest.mark.parametrize("round_trip", [0.0005, 0.005, 0.05, 0.2])
    def test_fills_a_link(self, megabytes_a_second: int, round_trip: float) -> None:
        link = ModelledLink(rate=megabytes_a_second * 1e6, round_trip=round_trip)
        capacity = min(link.rate, MAX_WINDOW / round_trip)
        link.run(2)
        assert link.run(2) > 0.8 * capacity

    def test_fills_a_link_of_50_ms_within_ten_round_trips(self) -> None:
        link = ModelledLink(rate=100e6, round_trip=0.05)
        link.run(0.5)
        assert link.run(1) > 0.8 * link.rate

    @pytest.mark.parametrize("round_trip", [0.001, 0.05])
    def test_keeps_little_in_the_queue_of_a_link_that_it_fills(self, round_trip: float) -> None:
        link = ModelledLink(rate=10e6, round_trip=round_trip)
        link.run(3)
        product = link.rate * round_trip
        link.peak = 0
        link.run(1)
        assert link.peak < max(2 * product, 2 * MIN_WINDOW) + CHUNK

    @pytest.mark.parametrize("kilobytes_a_second", [1, 100, 1000])
    def test_lets_a_slow_reader_hold_no_more_than_the_first_window(self, kilobytes_a_second: int) -> None:
        link = ModelledLink(rate=1e9, round_trip=0.05, read_rate=kilobytes_a_second * 1e3)
        link.run(60)
        assert link.peak <= INITIAL_WINDOW + CHUNK

    def test_shrinks_for_a_reader_that_has_become_slow(self) -> None:
        link = ModelledLink(rate=100e6, round_trip=0.05)
        link.run(3)
        assert link.flow.window > 10 * INITIAL_WINDOW
        link.read_rate = 100e3
        link.run(1500)  # by a tenth each round trip, of which the first takes two minutes
        assert link.flow.window <= INITIAL_WINDOW

    def test_grows_when_the_link_has_become_faster(self) -> None:
        link = ModelledLink(rate=5e6, round_trip=0.05)
        link.run(5)
        link.rate = 50e6
        link.run(5)
        assert link.run(1) > 0.8 * link.rate

    def test_does_not_shrink_for_a_writer_that_has_little_to_say(self) -> None:
        now = 0.0
        flow = FlowWindow(clock=lambda: now)
        for _ in range(100):
            sent = flow.send(100)
            now += 0.05
            flow.acknowledge(sent)
        assert flow.window == INITIAL_WINDOW

    def test_stays_within_its_bounds(self) -> None:
        slow = ModelledLink(rate=1e9, round_trip=0.0001, read_rate=1e3)
        slow.run(6000)
        assert slow.flow.window == MIN_WINDOW
        fast = ModelledLink(rate=1e11, round_trip=1.0, chunk=1024 * 1024)
        fast.run(20)
        assert fast.flow.window == MAX_WINDOW

    def test_forgets_what_failed(self) -> None:
        flow = FlowWindow(clock=lambda: 0.0)
        flow.fail(flow.send(INITIAL_WINDOW))
        assert (flow.in_flight, flow.is_full, flow.window) == (0, False, INITIAL_WINDOW)

    def test_bears_a_clock_that_stands_still(self) -> None:
        flow = FlowWindow(clock=lambda: 0.0)
        for sent in [flow.send(CHUNK) for _ in range(10)]:
            flow.acknowledge(sent)
        assert flow.in_flight == 0


# Over real links


class Reader(RpcTarget):
    """Reads when it is told to."""

    def __init__(self) -> None:
        self.turns = asyncio.Semaphore(0)
        self.read = 0

    @rpc_method("consume(stream)")
    async def consume(self, stream: ReadableStream) -> int:
        while True:
            await self.turns.acquire()
            try:
                await anext(stream)
            except StopAsyncIteration:
                return self.read
            self.read += 1

    @rpc_method("drain(stream)")
    async def drain(self, stream: ReadableStream) -> int:
        async for _ in stream:
            self.read += 1
        return self.read


class Source:
    """Chunks of one size, and how many of them the writer has taken."""

    def __init__(self, count: int, size: int = CHUNK) -> None:
        self.count = count
        self.taken = 0
        self.chunk = "x" * size

    async def __aiter__(self) -> AsyncIterator[str]:
        while self.taken < self.count:
            self.taken += 1
            yield self.chunk


class Remembering(FlowWindow):
    """A window of which it is known how wide it has been."""

    widest: float

    def send(self, size: int) -> Sent:
        Remembering.widest = max(Remembering.widest, self.window)
        return super().send(size)


LINKS = pytest.mark.parametrize("link", [memory_link, websocket_link], ids=["in memory", "over WebSocket"])


@LINKS
class TestASlowReader:
    async def test_holds_no_more_than_the_first_window_when_it_does_not_read_at_all(self, link) -> None:
        source, reader = Source(1000), Reader()
        async with (
            link() as (one, other),
            Connection(other, reader, call_grace=0) as server,
            Connection(one) as client,
        ):
            consumed = client.remote_main.consume(ReadableStream(source))
            exports = server.session.exports
            await eventually(lambda: exports._unread >= INITIAL_WINDOW)
            await asyncio.sleep(0.05)  # for what would come if more did
            assert exports._unread < INITIAL_WINDOW + 2 * CHUNK
            # All that has left the source has arrived, so nothing waits anywhere else.
            assert exports._unread // CHUNK == source.taken
            consumed.dispose()

    async def test_holds_no_more_than_a_window_however_long_it_reads(
        self, link, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(streams, "FlowWindow", Remembering)
        Remembering.widest = 0
        source, reader = Source(300), Reader()
        held: list[int] = []
        async with (
            link() as (one, other),
            Connection(other, reader) as server,
            Connection(one) as client,
        ):
            consumed = client.remote_main.consume(ReadableStream(source))
            pulled = asyncio.ensure_future(consumed)
            for turn in range(source.count + 1):
                reader.turns.release()

                def is_read(turn: int = turn) -> bool:
                    return reader.read > turn or pulled.done()

                await eventually(is_read)
                if turn % 20 == 0:
                    await asyncio.sleep(0.01)
                held.append(server.session.exports._unread)
            assert await pulled == source.count
        # How wide that is follows from times here, which may be any; in virtual time it is told above.
        assert INITIAL_WINDOW <= max(held) < Remembering.widest + 2 * CHUNK

    async def test_bears_many_writes_at_once(self, link) -> None:
        reader = Reader()
        async with link() as (one, other), Connection(other, Writer()), Connection(one, reader) as client:
            pipe: asyncio.Queue[object] = asyncio.Queue()
            gate = asyncio.Event()

            async def write(value: object) -> None:
                pipe.put_nowait(value)
                await gate.wait()

            writing = asyncio.ensure_future(
                client.remote_main.writeAtOnce(WritableStream.calling(write), 100)
            )
            exports = client.session.exports
            await eventually(lambda: exports._unread >= INITIAL_WINDOW)
            await asyncio.sleep(0.05)  # for what would come if more did
            assert exports._unread < INITIAL_WINDOW + 2 * CHUNK
            gate.set()
            await writing
            assert [pipe.get_nowait()[0] for _ in range(100)] == [*range(100)]  # type: ignore[index]


class Writer(RpcTarget):
    @rpc_method("writeAtOnce(stream, count)")
    async def write_at_once(self, stream: WritableStream, count: int) -> None:
        await asyncio.gather(*(stream.write([number, "x" * CHUNK]) for number in range(count)))
        await stream.close()


class Unlimited(FlowWindow):
    """A window that is never full."""

    @property
    def is_full(self) -> bool:
        return False


async def rate_through(delay: float, rate: float, count: int) -> float:
    """Return the chunks a second that arrive through such a link, once half of ``count`` have."""
    reader, source = Reader(), Source(count, size=32 * 1024)
    loop = asyncio.get_running_loop()
    async with (
        slow_link(delay=delay, rate=rate) as (one, other),
        Connection(other, reader),
        Connection(one) as client,
    ):
        drained = asyncio.ensure_future(client.remote_main.drain(ReadableStream(source)))
        await eventually(lambda: reader.read >= count // 2)
        began, read = loop.time(), reader.read
        await eventually(lambda: reader.read == count)
        speed = (reader.read - read) / (loop.time() - began)
        assert await drained == count
        return speed


@pytest.mark.slow
async def test_a_stream_fills_a_link_of_50_ms_like_a_writer_without_a_window(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # 16 MB/s at 50 ms: 800 kB have to be on their way, three times the first window. Other work on the
    # machine slows down the one or the other now and then; a window that is too small slows down one, always.
    for _ in range(4):
        ours = await rate_through(0.025, 16e6, 800)
        with monkeypatch.context() as patched:
            patched.setattr(streams, "FlowWindow", Unlimited)
            unlimited = await rate_through(0.025, 16e6, 800)
        if ours > 0.8 * unlimited:
            return
    pytest.fail(f"{ours:.0f} chunks a second through a window, {unlimited:.0f} without")
