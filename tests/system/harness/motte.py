"""The command-line client, and what may stand between it and the service."""

import contextlib
import math
import os
import re
import select
import socket
import subprocess
import threading
from pathlib import Path

from harness.daemon import Daemon


class Motte:
    """The program, told where this daemon is."""

    def __init__(self, daemon: Daemon) -> None:
        self.program = daemon.bin / "motte"
        self.environment = os.environ | {"MOTTE_ADDRESS": str(daemon.socket_path)}

    def __call__(self, *words: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [self.program, *words],
            env=self.environment,
            input=given,
            check=False,
            capture_output=True,
            timeout=300,
        )

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [self.program, *words],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )


class Cutting:
    """Stands before the service and ends connections early: `cuts` says after how many bytes of
    the answer, for the next requests whose line matches."""

    def __init__(self, path: Path, service: Path, line: bytes, cuts: list[int]) -> None:
        self.service, self.line, self.cuts = service, line, cuts
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.bind(str(path))
        self.socket.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self.socket.accept()
                threading.Thread(target=self._forward, args=(near,), daemon=True).start()

    def _forward(self, near: socket.socket) -> None:
        far = socket.socket(socket.AF_UNIX)
        left: float = math.inf
        with near, far, contextlib.suppress(OSError):
            far.connect(str(self.service))
            while left > 0:
                for ready in select.select([near, far], [], [])[0]:
                    data = ready.recv(65536)
                    if data == b"":
                        return
                    if ready is far:
                        near.sendall(data[: int(min(left, len(data)))])
                        left -= len(data)
                        continue
                    if re.match(self.line, data) and self.cuts:
                        left = self.cuts.pop(0)
                    far.sendall(data)
                    if left == 0:
                        far.recv(1)  # it is done, and nobody hears of it


class Stranger:
    """Says what a service would never say, or only to whom a guest wrote it: always the same."""

    def __init__(self, path: Path) -> None:
        self.body = b""
        self.refused: bytes | None = None  # requests with this in their line
        self.head = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-tar\r\n"
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.bind(str(path))
        self.socket.listen()
        threading.Thread(target=self._answer, daemon=True).start()

    def _answer(self) -> None:
        try:
            while True:
                near, _ = self.socket.accept()
                with near:
                    line = near.recv(65536).splitlines()[0]
                    head, body = self.head, self.body
                    if self.refused is not None and self.refused in line:
                        head = b"HTTP/1.1 400 Bad Request\r\n"
                        body = b'{"code":"invalid_query","detail":"refused"}'
                    length = b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(body)
                    near.sendall(head + length + body)
        except OSError:
            pass
