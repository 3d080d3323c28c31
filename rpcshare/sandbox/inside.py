"""The init of a sandbox: a program of its own, which runs inside, and imports nothing but Python's library.

It is process 1 inside, so that nothing is there which the filter of system calls does not bind, and whose
memory another could write: it lets nobody look into itself. It takes the identity of its user, and limits;
installs the filter of system calls; forwards ports of the loopback interface to Unix sockets; starts the
command, reaps what others leave, and waits for its end. Its only connection to the server is a Unix socket:
its argument is the descriptor of one that is connected, or a path to connect to. When that closes, the
command is ended. Messages on it are JSON, a line each:

- the server sends what to run, and later perhaps ``{"terminate": true}``. With the first message come open
  files: the socket that the server listens on for the command, and the pipe for the command's output;
- it sends ``{"started": true}``, ``{"refused": NAME, "count": N}``, and at last ``{"exit": STATUS}`` or
  ``{"failed": WHY}``. After the former it waits for the server to close, which may want to look at what the
  sandbox has used while it is still there.
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import errno
import fcntl
import json
import os
import resource
import selectors
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable
from typing import Any, TypeAlias

_PIECE = 64 * 1024
_MAX_CONNECTIONS = 256
_REPORT_EVERY = 1.0
_CLOSED_SECONDS = 5.0

_PR_SET_DUMPABLE = 4
_PR_SET_NO_NEW_PRIVS = 38
_SET_MODE_FILTER = 1
_NEW_LISTENER = 1 << 3
_SECCOMP = {"x86_64": 317, "aarch64": 277}
_NOTIFICATION = struct.Struct("<QIIiIQ6Q")
_ANSWER = struct.Struct("<QqiI")
_RECEIVE, _SEND = 0xC0502100, 0xC0182101
_WORDS = {"socket": errno.EAFNOSUPPORT, "socketpair": errno.EAFNOSUPPORT}


Address: TypeAlias = "str | tuple[str, int]"


class Loop:
    """Everything that happens after the start, in one thread."""

    def __init__(self, control: socket.socket) -> None:
        self.selector = selectors.DefaultSelector()
        self.control = control
        self.connections = 0
        self.child = -1
        self.status: int | None = None
        self.names: dict[str, str] = {}
        self.refused: dict[str, int] = {}
        self.told_at = 0.0
        self.wakeup: socket.socket | None = None
        control.setblocking(False)
        self.selector.register(control, selectors.EVENT_READ, self.on_control)

    def run(self) -> int:
        """Run until the command has ended; return its status."""
        while self.status is None:
            for key, events in self.selector.select(self.longest_wait()):
                key.data(events)
            self.report()
        self.report(at_once=True)
        return self.status

    def longest_wait(self) -> float | None:
        """Return after how many seconds something is to be done although nothing happens."""
        return _REPORT_EVERY if self.refused else None

    def tell(self, **message: object) -> None:
        """Send the server a message."""
        with contextlib.suppress(OSError):
            self.control.setblocking(True)
            self.control.sendall(json.dumps(message).encode() + b"\n")
            self.control.setblocking(False)

    def on_control(self, _events: int) -> None:
        """Heed the server."""
        data = b""
        with contextlib.suppress(OSError):
            data = self.control.recv(4096)
        if not data:  # the server is gone
            os.kill(self.child, signal.SIGKILL)
            os._exit(1)
        signal_group(self.child, signal.SIGTERM)

    def watch_children(self) -> None:
        """Hear of each child that ends; those of others become this process's own."""
        near, far = socket.socketpair()
        for end in (near, far):
            end.setblocking(False)
        signal.set_wakeup_fd(far.fileno(), warn_on_full_buffer=False)
        self.wakeup = far  # which is open for as long as this
        signal.signal(signal.SIGCHLD, lambda *_: None)

        def on_end(_events: int) -> None:
            with contextlib.suppress(OSError):
                near.recv(4096)
            self.reap()

        self.selector.register(near, selectors.EVENT_READ, on_end)

    def reap(self) -> None:
        """Take the status of all children that have ended."""
        with contextlib.suppress(ChildProcessError):
            while True:
                child, status = os.waitpid(-1, os.WNOHANG)
                if not child:
                    return
                if child == self.child:
                    self.status = os.waitstatus_to_exitcode(status)

    # What the filter refuses

    def listen_for_refusals(self, listener: int, names: dict[str, str]) -> None:
        """Answer what the filter hands over."""
        self.names = names
        self.selector.register(listener, selectors.EVENT_READ, lambda _events: self.on_refusal(listener))

    def on_refusal(self, listener: int) -> None:
        """Refuse a system call."""
        notification = bytearray(_NOTIFICATION.size)
        try:
            fcntl.ioctl(listener, _RECEIVE, notification)
        except OSError:
            return  # who asked is gone
        identity, _, _, number, *_ = _NOTIFICATION.unpack(notification)
        name = self.names.get(str(number), str(number))
        answer = bytearray(_ANSWER.pack(identity, 0, -_WORDS.get(name, errno.EPERM), 0))
        with contextlib.suppress(OSError):
            fcntl.ioctl(listener, _SEND, answer)
        self.refused[name] = self.refused.get(name, 0) + 1

    def report(self, *, at_once: bool = False) -> None:
        """Tell the server what was refused, once a second."""
        now = time.monotonic()
        if self.refused and (at_once or now - self.told_at >= _REPORT_EVERY):
            self.told_at = now
            for name, count in self.refused.items():
                self.tell(refused=name, count=count)
            self.refused.clear()

    # Forwarding

    def forward_port(self, port: int, path: str) -> None:
        """Lead a port of the loopback interface to a Unix socket."""
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen(128)
        self.accept_on(listener, socket.AF_UNIX, path)

    def forward_socket(self, descriptor: int, port: int) -> None:
        """Lead a listening socket that the server has made to a port of the loopback interface."""
        self.accept_on(socket.socket(fileno=descriptor), socket.AF_INET, ("127.0.0.1", port))

    def accept_on(self, listener: socket.socket, family: int, address: Address) -> None:
        """Connect each that comes to an address."""
        listener.setblocking(False)

        def accept(_events: int) -> None:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            if self.connections >= _MAX_CONNECTIONS:
                near.close()
                return
            far = socket.socket(family)
            try:
                far.connect(address)
            except OSError:
                near.close()
                far.close()
                return
            self.connections += 1
            Pair(self, near, far)

        self.selector.register(listener, selectors.EVENT_READ, accept)


class Pair:
    """Two connections, of which each gets what the other sends. Reads wait for what is to be written."""

    def __init__(self, loop: Loop, near: socket.socket, far: socket.socket) -> None:
        self.loop = loop
        self.ends = (near, far)
        self.waiting = [b"", b""]  # to be written to each
        self.ended = [False, False]  # reading from each
        self.is_closed = False
        for each in self.ends:
            each.setblocking(False)
            loop.selector.register(each, selectors.EVENT_READ, self.ready(each))

    def ready(self, end: socket.socket) -> Callable[[int], None]:
        """Return what is called when an end can be read or written."""
        index = self.ends.index(end)
        return lambda events: self.on_ready(index, events)

    def on_ready(self, index: int, events: int) -> None:
        """Read and write what can be."""
        if self.is_closed:  # by what its other end was told in the same round
            return
        try:
            if events & selectors.EVENT_WRITE:
                sent = self.ends[index].send(self.waiting[index])
                self.waiting[index] = self.waiting[index][sent:]
            if events & selectors.EVENT_READ and not self.waiting[1 - index]:
                self.waiting[1 - index] = self.ends[index].recv(_PIECE)
                self.ended[index] = not self.waiting[1 - index]
            self.flush(1 - index)
            self.flush(index)
        except BlockingIOError:
            pass
        except OSError:
            self.close()
            return
        if all(self.ended) and not any(self.waiting):
            self.close()
        else:
            self.watch()

    def flush(self, index: int) -> None:
        """Write what waits, and pass on the end of the other side."""
        end = self.ends[index]
        if self.waiting[index]:
            with contextlib.suppress(BlockingIOError):
                sent = end.send(self.waiting[index])
                self.waiting[index] = self.waiting[index][sent:]
        if self.ended[1 - index] and not self.waiting[index]:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_WR)

    def watch(self) -> None:
        """Wait for what can be done next."""
        for index, end in enumerate(self.ends):
            wanted = selectors.EVENT_WRITE if self.waiting[index] else 0
            if not self.ended[index] and not self.waiting[1 - index]:
                wanted |= selectors.EVENT_READ
            known = end in self.loop.selector.get_map()
            if wanted and known:
                self.loop.selector.modify(end, wanted, self.ready(end))
            elif wanted:
                self.loop.selector.register(end, wanted, self.ready(end))
            elif known:
                self.loop.selector.unregister(end)

    def close(self) -> None:
        """End both, once."""
        if self.is_closed:
            return
        self.is_closed = True
        for each in self.ends:
            with contextlib.suppress(KeyError):
                self.loop.selector.unregister(each)
            each.close()
        self.loop.connections -= 1


def signal_group(child: int, number: int) -> None:
    """Signal the command, and what it has started in its group."""
    with contextlib.suppress(OSError):
        os.killpg(child, number)


def connect(argument: str) -> socket.socket:
    """Return the connection to the server."""
    if argument.isdecimal():
        control = socket.socket(fileno=int(argument))
    else:
        control = socket.socket(socket.AF_UNIX)
        control.connect(argument)
    os.set_inheritable(control.fileno(), False)
    return control


def read_message(control: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Return what the server wants to be run, and the files that it has opened for it."""
    data = b""
    descriptors: list[int] = []
    while not data.endswith(b"\n"):
        piece, passed, _, _ = socket.recv_fds(control, _PIECE, 2)
        if not piece:
            raise OSError("the server is gone")
        data += piece
        descriptors += passed
    for each in descriptors:
        os.set_inheritable(each, False)
    message: dict[str, Any] = json.loads(data)
    return message, descriptors


def await_close(control: socket.socket) -> None:
    """Return when the server has closed, or does not."""
    with contextlib.suppress(OSError):
        control.settimeout(_CLOSED_SECONDS)
        while control.recv(4096):
            pass


def become(user: list[int] | None) -> None:
    """Take the identity of the sandbox, for good."""
    if user is not None:
        os.setgroups([])
        os.setresgid(user[1], user[1], user[1])
        os.setresuid(user[0], user[0], user[0])
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def limit(limits: dict[str, int]) -> None:
    """Set limits for this process and all that it starts."""
    for name, value in limits.items():
        kind = getattr(resource, name)
        hard = resource.getrlimit(kind)[1]
        most = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (most, most))


def install_filter(program: bytes) -> int:
    """Install the filter for this process and all that it starts; return what tells of refusals."""

    class Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_void_p)]

    code = ctypes.create_string_buffer(program, len(program))
    described = Program(len(program) // 8, ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    number = _SECCOMP[os.uname().machine]
    listener = libc.syscall(number, _SET_MODE_FILTER, _NEW_LISTENER, ctypes.byref(described))
    if listener < 0:
        raise OSError(ctypes.get_errno(), "the filter of system calls cannot be installed")
    return int(listener)


def start(message: dict[str, Any], output: int | None) -> int:
    """Start the command in a session of its own, which prints to ``output``; return its process."""
    child = os.fork()
    if child:
        return child
    try:
        os.setsid()
        if output is not None:
            os.dup2(output, 1)
            os.dup2(output, 2)
        for number in range(1, signal.NSIG):
            with contextlib.suppress(OSError, ValueError):
                signal.signal(number, signal.SIG_DFL)
        # A file that would be too long is an error of whoever writes it, and not the end of that program.
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        os.chdir(message["directory"])
        os.umask(0o022)
        os.execvpe(message["command"][0], message["command"], message["environment"])  # noqa: S606 -- its purpose
    except OSError as exc:
        os.write(2, f"{message['command'][0]}: {exc.strerror}\n".encode())
    os._exit(127)


def main() -> int:
    """Run what the server says; return the status of the command."""
    try:
        control = connect(sys.argv[1])
    except OSError as exc:
        sys.stderr.write(f"the server cannot be reached: {exc.strerror}\n")
        return 1
    try:
        message, descriptors = read_message(control)
    except (OSError, ValueError) as exc:
        sys.stderr.write(f"the server said nothing: {exc}\n")
        return 1
    return supervise(Loop(control), message, descriptors)


def supervise(loop: Loop, message: dict[str, Any], descriptors: list[int]) -> int:
    """Do what the server has said; return the status of the command."""
    control = loop.control
    try:
        become(message["user"])
        limit(message["limits"])
        for port, path in message["ports"]:
            loop.forward_port(port, path)
        if message["serves"] is not None:
            loop.forward_socket(descriptors.pop(0), message["serves"])
        if message["filter"]:
            listener = install_filter(base64.b64decode(message["filter"]))
            loop.listen_for_refusals(listener, message["names"])
        loop.watch_children()
        output = descriptors.pop(0) if descriptors else None
        loop.child = start(message, output)
        if output is not None:
            os.close(output)
    except (OSError, KeyError, ValueError) as exc:
        loop.tell(failed=str(exc))
        return 1
    loop.tell(started=True)
    loop.reap()  # it may have ended before it was known
    status = loop.run()
    code = status if status >= 0 else 128 - status
    loop.tell(exit=code)
    await_close(control)
    return code


if __name__ == "__main__":
    sys.exit(main())
