"""A guest's agent spoken to behind the service's back, over Firecracker's vsock socket: what it
says while nobody else could ask."""

import json
import socket
import struct
from typing import Any

SERVICE_PORT = 1024  # vsock/wire.h
CONTROL, STDOUT = b"J", b"1"


class Agent:
    """One service connection to the guest of the VMM `pid`; runs one command at a time."""

    def __init__(self, pid: int, seconds: float = 30) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(seconds)
        self.sock.connect(f"/proc/{pid}/root/v.sock")
        self.sock.sendall(f"CONNECT {SERVICE_PORT}\n".encode())
        answer = b""
        while not answer.endswith(b"\n"):
            answer += self._take(1)
        assert answer.startswith(b"OK "), answer
        self.last_id = 0

    def __enter__(self) -> "Agent":
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def _take(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            more = self.sock.recv(count - len(data))
            assert more, "the agent closed the connection"
            data += more
        return data

    def _frame(self) -> tuple[bytes, bytes]:
        (length,) = struct.unpack(">I", self._take(4))
        payload = self._take(length)
        return payload[:1], payload[1:]

    def ask(self, **request: object) -> dict[str, Any]:
        self.last_id += 1
        body = CONTROL + json.dumps({"id": self.last_id, **request}).encode()
        self.sock.sendall(struct.pack(">I", len(body)) + body)
        kind, reply = self._frame()
        assert kind == CONTROL, reply
        answer: dict[str, Any] = json.loads(reply)
        assert answer["id"] == self.last_id, answer
        assert answer["ok"], answer
        return answer

    def uptime_ms(self) -> int:
        return int(self.ask(op="ping")["uptime_ms"])

    def run(self, *argv: str) -> str:
        """What a command wrote to stdout."""
        self.ask(op="exec", argv=list(argv), timeout_ms=10_000, stdin=False)
        out = b""
        while True:
            kind, data = self._frame()
            if kind == CONTROL:
                return out.decode()
            out += data if kind == STDOUT else b""
