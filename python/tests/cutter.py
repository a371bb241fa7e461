"""A wire that breaks: a Unix socket in front of motted's, whose connections end early."""

import re
import socket
import threading
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

REQUEST = -1  # ends once the request is through; the service works on, and its answer is lost


def complete(request: bytes) -> bool:
    head, end, body = request.partition(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head, re.I)
    return bool(end) and len(body) >= (int(length[1]) if length else 0)


class Cutter:
    """`cuts`: of the first connection, the second …, how many bytes of answers come through, or
    REQUEST. Those after them are whole."""

    def __init__(self, path: Path, target: Path, cuts: Iterable[int]) -> None:
        self.path, self._target, self._cuts = path, target, iter(cuts)
        self.done = 0
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._thread = threading.Thread(target=self._accept)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, why: BaseException | None, at: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.socket(socket.AF_UNIX)
                server.connect(str(self._target))
                left = next(self._cuts, None)
                threading.Thread(target=self._to, args=(client, server, left), daemon=True).start()
                threading.Thread(
                    target=self._back, args=(client, server, left), daemon=True
                ).start()

    def _to(self, client: socket.socket, server: socket.socket, left: int | None) -> None:
        sent = b""
        with suppress(OSError):
            while piece := client.recv(65536):
                server.sendall(piece)
                sent += piece
                if left == REQUEST and complete(sent):
                    self._cut(client)
                    return
            server.shutdown(socket.SHUT_WR)

    def _back(self, client: socket.socket, server: socket.socket, left: int | None) -> None:
        with suppress(OSError), client, server:
            while piece := server.recv(65536):
                if left == REQUEST:
                    return
                if left is not None and len(piece) >= left:
                    client.sendall(piece[:left])
                    self._cut(client)
                    return
                left = None if left is None else left - len(piece)
                client.sendall(piece)

    def _cut(self, client: socket.socket) -> None:
        self.done += 1
        client.shutdown(socket.SHUT_RDWR)
