"""A process that draws pieces: ``python -m rpcshare.render.render_process MEMORY_BYTES``.

Its standard input is a socket. A :class:`~rpcshare.render.pieces.Request` comes in and an
:class:`~rpcshare.render.pieces.Answer` goes out, each as MessagePack behind its length (4 bytes, big-endian).
The first answer is empty and says that the process is ready.

A regular expression cannot be interrupted from within the process, so the kernel ends it when a piece has
taken its CPU time: a profiling timer sends a signal whose action is the default. It is CPU time, so that what
is drawn does not depend on what else the machine does. The process ends by itself when its socket is closed,
and so with the server, however that ends.
"""

import contextlib
import os
import resource
import signal
import socket
import sys
import time
import traceback

import msgspec

from rpcshare.render.piece_rendering import PieceRendering
from rpcshare.render.pieces import LIMITS, OUT_OF_MEMORY, Answer, Cause, Request

__all__ = ["main"]

_decode = msgspec.msgpack.Decoder(Request).decode
_encode = msgspec.msgpack.Encoder().encode


def main() -> None:
    """Draw until the other end is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    # macOS does not heed such a limit: there, the time that a piece may take is all that bounds its memory.
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_DATA, (int(sys.argv[1]),) * 2)
    drawing = PieceRendering()
    # What fails before this is said on the server's standard error; what fails later may tell of sessions.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    with socket.socket(fileno=0) as connection, connection.makefile("rb") as requests:
        _send(connection, Answer(0.0))
        while head := requests.read(4):
            try:
                body = requests.read(int.from_bytes(head, "big"))
            except MemoryError:
                os._exit(OUT_OF_MEMORY)
            _send(connection, _answer(drawing, body))


def _answer(drawing: PieceRendering, body: bytes) -> Answer:
    began_at = time.process_time()
    html, cause, where = "", None, ""
    try:
        request = _decode(body)
        limits = LIMITS[request.piece.is_whole]
        signal.setitimer(signal.ITIMER_PROF, limits.seconds)
        html = str(drawing.draw(request.piece, request.detail, request.cause))
        html.encode()
        if len(html) > limits.characters:
            html, cause = "", Cause.SIZE
    except MemoryError:
        os._exit(OUT_OF_MEMORY)  # anything may be in any state
    except Exception as exc:  # noqa: BLE001 -- whatever a session holds, its other pieces are shown
        # The text of the exception may hold what users wrote.
        frame = traceback.extract_tb(exc.__traceback__)[-1]
        html, cause, where = "", Cause.ERROR, f"{type(exc).__name__} at {frame.filename}:{frame.lineno}"
    signal.setitimer(signal.ITIMER_PROF, 0)
    return Answer(time.process_time() - began_at, html, cause, where, memory=_memory())


def _send(connection: socket.socket, answer: Answer) -> None:
    body = _encode(answer)
    connection.sendall(len(body).to_bytes(4, "big") + body)


def _memory() -> int:
    """Return how many bytes of memory the process has held at most."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        main()
