"""Server-sent events, over the service's Unix socket or TCP, read as they come."""

import base64
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from types import TracebackType


@dataclass(frozen=True)
class Event:
    """One event; `raw` is its data as it came."""

    name: str
    id: str
    raw: str

    @property
    def data(self) -> bytes:
        """Of stdout and stderr."""
        return base64.b64decode(self.raw, validate=True)


class _Connection(HTTPConnection):
    def __init__(self, path: Path, seconds: float) -> None:
        super().__init__("motte", timeout=seconds)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self.path))


class Events:
    """A stream that is open: iterate over it; leaving the block drops the connection."""

    def __init__(
        self,
        to: Path | int,
        target: str,
        after: str | None = None,
        seconds: float = 60,
        headers: dict[str, str] | None = None,
    ) -> None:
        """`to`: a socket's path, or a TCP port of this host."""
        self._connection = (
            HTTPConnection("127.0.0.1", to, timeout=seconds)
            if isinstance(to, int)
            else _Connection(to, seconds)
        )
        place = {} if after is None else {"Last-Event-ID": after}
        self._connection.request("GET", target, headers=(headers or {}) | place)
        self.response: HTTPResponse = self._connection.getresponse()
        self.status = self.response.status
        self.comments = 0

    def __enter__(self) -> "Events":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self.response.close()
        self._connection.close()

    def __iter__(self) -> Iterator[Event]:
        return parse(self._counted())

    def _counted(self) -> Iterator[bytes]:
        for line in iter(self.response.readline, b""):
            self.comments += line == b":\n"
            yield line


def parse(lines: Iterator[bytes]) -> Iterator[Event]:
    """Each event once it is complete."""
    fields: dict[str, str] = {}
    for line in lines:
        text = line.decode().removesuffix("\n")
        if text:
            name, _, value = text.partition(": ")
            fields[name] = value
        elif "event" in fields:
            yield Event(fields["event"], fields["id"], fields["data"])
            fields = {}
        else:
            fields = {}
