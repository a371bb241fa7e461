"""A guest's agent spoken to behind the service's back, over Firecracker's vsock socket or a serial
port: what it says while nobody else could ask."""

import contextlib
import json
import os
import socket
import struct
from pathlib import Path
from typing import Any, Self

SERVICE_PORT = 1024  # vsock/wire.h
CONTROL, STDOUT = b"J", b"1"


class Session:
    """One connection to an agent; takes the socket. Runs one command at a time."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.last_id = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def take(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            more = self.sock.recv(count - len(data))
            if not more:
                raise ConnectionResetError("the agent closed the connection")
            data += more
        return data

    def frame(self) -> tuple[bytes, bytes]:
        (length,) = struct.unpack(">I", self.take(4))
        payload = self.take(length)
        return payload[:1], payload[1:]

    def message(self) -> dict[str, Any]:
        kind, data = self.frame()
        assert kind == CONTROL, data
        message: dict[str, Any] = json.loads(data)
        return message

    def send(self, message: dict[str, Any]) -> None:
        body = CONTROL + json.dumps(message).encode()
        self.sock.sendall(struct.pack(">I", len(body)) + body)

    def call(self, **request: object) -> dict[str, Any]:
        """The answer, yes or no."""
        self.last_id += 1
        self.send({"id": self.last_id, **request})
        answer = self.message()
        assert answer["id"] == self.last_id, answer
        return answer

    def ask(self, **request: object) -> dict[str, Any]:
        answer = self.call(**request)
        assert answer["ok"], answer
        return answer

    def uptime_ms(self) -> int:
        return int(self.ask(op="ping")["uptime_ms"])

    def greet(self) -> dict[str, Any]:
        """Takes the hello that the agent says of itself, and answers it."""
        hello = self.message()
        assert hello["op"] == "hello", hello
        self.send({"id": hello["id"], "ok": True})
        return hello

    def closed(self) -> None:
        """Waits until the agent has ended the connection."""
        with contextlib.suppress(ConnectionResetError):
            assert not self.sock.recv(1)

    def begin(self, *argv: str) -> None:
        self.ask(op="exec", argv=list(argv), timeout_ms=60_000, stdin=False)

    def run(self, *argv: str) -> str:
        """What a command wrote to stdout."""
        self.begin(*argv)
        out = b""
        while True:
            kind, data = self.frame()
            if kind == CONTROL:
                return out.decode()
            out += data if kind == STDOUT else b""


def dial(path: Path | str, seconds: float) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(seconds)
    try:
        sock.connect(str(path))
    except OSError:
        sock.close()
        raise
    return sock


class VsockSession(Session):
    """A service connection through Firecracker's vsock socket."""

    def __init__(self, path: Path | str, seconds: float = 30) -> None:
        super().__init__(dial(path, seconds))
        try:
            self.sock.sendall(f"CONNECT {SERVICE_PORT}\n".encode())
            answer = b""
            while not answer.endswith(b"\n"):
                answer += self.take(1)
            assert answer.startswith(b"OK "), answer
        except BaseException:
            self.sock.close()
            raise


class Agent(VsockSession):
    """Of the guest of the VMM `pid`."""

    def __init__(self, pid: int, seconds: float = 30) -> None:
        super().__init__(f"/proc/{pid}/root/v.sock", seconds)


class SerialSession(Session):
    """A session on a serial port. `before`: bytes that go in front of its mark."""

    def __init__(
        self, path: Path | str, token: bytes, before: bytes = b"", seconds: float = 60
    ) -> None:
        super().__init__(dial(path, seconds))
        mark = token + os.urandom(8)
        self.sock.sendall(before + mark)
        self.stale = b""  # what came before the mark was answered
        while mark not in self.stale:
            self.stale += self.take(1)
        self.stale = self.stale.removesuffix(mark)
