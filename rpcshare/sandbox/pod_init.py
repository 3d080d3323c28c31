"""The init of a sandbox that is a pod: a program of its own, which runs inside, beside :mod:`inside`.

The server is on another machine, so there are no sockets to share. It connects to the init, over TCP, as
often as there is something to be carried; nothing in the pod connects to anything. Each connection begins so
that either end knows the other by the pod's token, which itself is never sent:

- the init sends ``{"nonce": A}``;
- the server sends ``{"role": ROLE, "id": N, "nonce": B, "proof": HMAC(token, "server A ROLE N")}``;
- the init sends ``{"proof": HMAC(token, "pod B")}``.

Then it is what its role says: ``control``, once, as :mod:`inside` has it; ``serve``, which leads to the
command's port; or ``data``, which leads to whoever has connected to a port inside. For each of those, the
init asks for one by ``{"dial": N, "port": PORT}`` on the control connection. It also sends there what the
command prints, ``{"output": BASE64}``, and which limit is exceeded, ``{"exceeded": "memory"|"processes"}``.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
import os
import secrets
import selectors
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any, TypeAlias

if __name__ == "__main__":
    # The directory in which the pod has the few modules that this needs, under their own names.
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from rpcshare.sandbox import inside

_HANDSHAKE_SECONDS = 10.0
_CONTROL_SECONDS = 120.0
_MOST_HANDSHAKES = 32
_LONGEST_LINE = 4096
_PIECE = 32 * 1024
_LOOK_EVERY = 0.25
_DIAL_SECONDS = 20.0
_SILENCE = 30  # seconds, after which a connection counts as broken

Role: TypeAlias = "tuple[str, int]"


def proof(token: bytes, *words: object) -> str:
    """Return what only who knows the token can say."""
    return hmac.new(token, " ".join(map(str, words)).encode(), hashlib.sha256).hexdigest()


def keep_alive(connection: socket.socket) -> None:
    """Have a connection fail when the other end has been away for half a minute: nothing else would tell."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _SILENCE // 2)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _SILENCE * 1000)


def shake_hands(connection: socket.socket, token: bytes) -> Role:
    """Return what a connection is for, once either end knows the other. Raises OSError, ValueError."""
    connection.settimeout(_HANDSHAKE_SECONDS)
    nonce = secrets.token_hex(16)
    connection.sendall(json.dumps({"nonce": nonce}).encode() + b"\n")
    answer = json.loads(read_line(connection))
    role, number = str(answer["role"]), int(answer["id"])
    if not hmac.compare_digest(str(answer["proof"]), proof(token, "server", nonce, role, number)):
        raise ValueError("that is not the server")
    connection.sendall(json.dumps({"proof": proof(token, "pod", answer["nonce"])}).encode() + b"\n")
    keep_alive(connection)
    return role, number


def read_line(connection: socket.socket) -> bytes:
    """Return a line, and nothing of what follows it."""
    line = b""
    while not line.endswith(b"\n"):
        piece = connection.recv(1)
        if not piece or len(line) > _LONGEST_LINE:
            raise OSError("the connection has ended")
        line += piece
    return line


class Door:
    """Accepts connections of the server, in threads, and hands over those that are what they say."""

    def __init__(self, port: int, token: bytes) -> None:
        """Listen on all addresses of the pod. Raises OSError."""
        family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET
        self.listener = socket.create_server(
            ("", port), family=family, backlog=128, dualstack_ipv6=family == socket.AF_INET6
        )
        self.token = token
        self.near, self.far = socket.socketpair()
        self.near.setblocking(False)
        self.arrived: list[tuple[socket.socket, Role]] = []
        self.lock = threading.Lock()
        self.shaking = threading.BoundedSemaphore(_MOST_HANDSHAKES)

    def accept(self) -> None:
        """Begin with one that connects."""
        try:
            connection, _ = self.listener.accept()
        except OSError:
            return
        if not self.shaking.acquire(blocking=False):
            connection.close()
            return
        threading.Thread(target=self.shake, args=(connection,), daemon=True).start()

    def shake(self, connection: socket.socket) -> None:
        """Find out who it is."""
        try:
            role = shake_hands(connection, self.token)
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            connection.close()
            return
        finally:
            self.shaking.release()
        with self.lock:
            self.arrived.append((connection, role))
        with contextlib.suppress(OSError):
            self.far.send(b"\0")

    def taken(self) -> list[tuple[socket.socket, Role]]:
        """Return those that have arrived."""
        with contextlib.suppress(OSError):
            self.near.recv(4096)
        with self.lock:
            arrived, self.arrived = self.arrived, []
        return arrived

    def control(self) -> socket.socket:
        """Return the control connection, once there is one. Raises OSError."""
        selector = selectors.DefaultSelector()
        selector.register(self.listener, selectors.EVENT_READ)
        selector.register(self.near, selectors.EVENT_READ)
        end = time.monotonic() + _CONTROL_SECONDS
        while (left := end - time.monotonic()) > 0:
            for key, _ in selector.select(left):
                if key.fileobj is self.listener:
                    self.accept()
                for connection, (role, _number) in self.taken():
                    if role == "control":
                        selector.close()
                        return connection
                    connection.close()
        raise OSError("the server has not come")


class PodLoop(inside.Loop):
    """As that, with the server on another machine."""

    def __init__(self, control: socket.socket, door: Door, message: dict[str, Any], output: int) -> None:
        """Take what the command prints from ``output``."""
        super().__init__(control)
        self.door = door
        self.serves: int | None = message["pod"]["serves"]
        self.processes = int(message["pod"]["processes"])
        self.output = output
        self.waiting: dict[int, tuple[socket.socket, float]] = {}
        self.dialled = 0
        self.looked_at = time.monotonic()
        self.exceeded = False
        self.heard = b""
        door.listener.setblocking(False)
        os.set_blocking(output, False)
        self.selector.register(door.listener, selectors.EVENT_READ, lambda _: door.accept())
        self.selector.register(door.near, selectors.EVENT_READ, self.on_arrival)
        self.selector.register(output, selectors.EVENT_READ, self.on_output)
        for port in message["pod"]["ports"]:
            self.ask_for_port(int(port))

    def longest_wait(self) -> float | None:
        """Return when to look at what is used."""
        return _LOOK_EVERY

    def report(self, *, at_once: bool = False) -> None:
        """Tell of refusals, of what is used, and at the end of the rest of the output."""
        super().report(at_once=at_once)
        now = time.monotonic()
        if at_once or now - self.looked_at >= _LOOK_EVERY:
            self.looked_at = now
            self.look()
            for number, (near, until) in list(self.waiting.items()):
                if now > until:
                    del self.waiting[number]
                    near.close()
        if at_once:
            while self.on_output(0):
                pass

    def look(self) -> None:
        """Tell of a limit that is exceeded, and end the command."""
        limit = "memory" if killed_for_memory() else "processes" if tasks() > self.processes else ""
        if limit and not self.exceeded:
            self.exceeded = True
            self.tell(exceeded=limit)
            inside.signal_group(self.child, signal.SIGKILL)
            kill_all()

    def on_control(self, _events: int) -> None:
        """Heed the server."""
        data = b""
        with contextlib.suppress(OSError):
            data = self.control.recv(4096)
        if not data:
            kill_all()
            os._exit(1)
        self.heard += data
        while b"\n" in self.heard:
            line, _, self.heard = self.heard.partition(b"\n")
            if b"terminate" in line:
                inside.signal_group(self.child, signal.SIGTERM)

    def on_output(self, _events: int) -> bool:
        """Pass on what is printed; return whether there was something."""
        try:
            data = os.read(self.output, _PIECE)
        except OSError:
            return False
        if not data:
            with contextlib.suppress(KeyError):
                self.selector.unregister(self.output)
            return False
        self.tell(output=base64.b64encode(data).decode())
        return True

    def ask_for_port(self, port: int) -> None:
        """Have the server connect for each that connects to a port inside."""
        listener = socket.create_server(("127.0.0.1", port), backlog=128)
        listener.setblocking(False)

        def accept(_events: int) -> None:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            self.dialled += 1
            self.waiting[self.dialled] = (near, time.monotonic() + _DIAL_SECONDS)
            self.tell(dial=self.dialled, port=port)

        self.selector.register(listener, selectors.EVENT_READ, accept)

    def on_arrival(self, _events: int) -> None:
        """Connect those of the server with what they are for."""
        for far, (role, number) in self.door.taken():
            near: socket.socket | None = None
            if role == "data":
                near, _ = self.waiting.pop(number, (None, 0.0))
            elif role == "serve" and self.serves is not None:
                near = socket.socket()
                try:
                    near.connect(("127.0.0.1", self.serves))
                except OSError:
                    near.close()
                    near = None
            if near is None:
                far.close()
            else:
                self.connections += 1
                inside.Pair(self, near, far)


def tasks() -> int:
    """Return how many processes and threads there are, beside the init's own."""
    count = 0
    for entry in os.scandir("/proc"):
        if entry.name.isdecimal() and entry.name != str(os.getpid()):
            with contextlib.suppress(OSError):
                count += len(os.listdir(f"/proc/{entry.name}/task"))  # noqa: PTH208 -- names alone
    return count


def killed_for_memory() -> bool:
    """Whether the kernel has killed something inside for want of memory, as its control group has it."""
    for file in ("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            for line in Path(file).read_text().splitlines():
                if line.startswith("oom_kill ") and int(line.split()[1]) > 0:
                    return True
    return False


def of_image() -> dict[str, str]:
    """Return the environment of the image: what tells of the cluster is none of it."""
    return {name: value for name, value in os.environ.items() if not name.startswith("KUBERNETES_")}


def kill_all() -> None:
    """Kill all but the init, which is process 1; where it is not, what others run is none of its business."""
    if os.getpid() == 1:
        with contextlib.suppress(OSError):
            os.kill(-1, signal.SIGKILL)


def main() -> int:
    """Wait for the server, and do what it says. Arguments: the port, and the file of the token."""
    port, file = int(sys.argv[1]), Path(sys.argv[2])
    try:
        door = Door(port, file.read_bytes())
        control = door.control()
        control.settimeout(None)
        os.set_inheritable(control.fileno(), False)
        message, _ = inside.read_message(control)
    except (OSError, ValueError) as exc:
        sys.stderr.write(f"the sandbox does not start: {exc}\n")
        return 1
    message["environment"] = {**of_image(), **message["environment"], "PATH": os.environ.get("PATH", "/bin")}
    reading, writing = os.pipe()
    try:
        loop = PodLoop(control, door, message, reading)
    except OSError as exc:
        control.sendall(json.dumps({"failed": str(exc)}).encode() + b"\n")
        return 1
    return inside.supervise(loop, message, [writing])


if __name__ == "__main__":
    sys.exit(main())
