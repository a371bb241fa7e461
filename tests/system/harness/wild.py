"""Requests as no client should send them, and a strict reader of what comes back."""

import contextlib
import itertools
import random
import re
import select
import socket
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from .crowd import connect

LINGER_S = 0.02
AT_ONCE = 100
METHODS = ["GET", "POST", "DELETE", "PUT", "OPTIONS", "TRACE", "CONNECT", "BREW", "get", "G\0T", ""]
TARGETS = [
    "/healthz", "/vms", "/vms/nobody", "/vms/nobody/exec", "/metrics", "/openapi.yaml", "/images",
    "/", "*", "//vms", "/vms/%2e%2e", "/vms/a%00b", "/vms/../vms", "/vms?limit=1", "/vms?limit=%",
    "http://motte/vms", "motte:80", "/vms/" + "a" * 70, "/" + "b" * 3000, "/vms\0x", "/vms#a", "",
]  # fmt: skip
VERSIONS = ["HTTP/1.1"] * 20 + ["HTTP/1.0", "HTTP/1.2", "HTTP/2.0", "HTTP/1.1 x", "http/1.1", ""]
ENDS = ["\r\n"] * 12 + ["\n", "\r", "\n\r", "\r\r\n", "\0", ""]
HEADERS = [
    "Host: x", "Host: y", "Content-Type: application/json", "Content-Type: text/plain",
    "Content-Length: 16", "Content-Length: 0", "Content-Length: 99999999999999999999",
    "Content-Length: -1", "Content-Length: 1e3", "Content-Length:", "Content-Length : 3",
    "Transfer-Encoding: chunked", "Transfer-Encoding: gzip, chunked", "Transfer-Encoding: identity",
    "Expect: 100-continue", "Expect: nothing", "Connection: close", "Connection: keep-alive",
    "Connection: upgrade", "Upgrade: h2c", "Authorization: Bearer x", "Authorization: Basic eDp5",
    " folded", "\tfolded", ": no name", "no colon", "X: " + "y" * 4000, "\0: z", "X: \0",
    "Cookie: ;=;",
    "Range: bytes=0-", "Prefer: respond-async", "Accept-Encoding: gzip", "X" * 300 + ": y",
]  # fmt: skip
BODIES = [
    b"", b'{"image":"none"}', b'{"argv":["a"]}  ', b"10\r\n" + b"x" * 16 + b"\r\n0\r\n\r\n",
    b"0\r\n\r\n", b"fffffffffffffffff\r\n", b"-1\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
    b"\0" * 16, b"[" * 100,
]  # fmt: skip


def dice(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311


def _lines(rng: random.Random) -> bytes:
    method = rng.choice(METHODS[:4] if rng.random() < 0.9 else METHODS)
    target = rng.choice(TARGETS[:7] if rng.random() < 0.6 else TARGETS)
    lines = [f"{method} {target} {rng.choice(VERSIONS)}"]
    if rng.random() < 0.96:
        lines.append("Host: x")
    lines += rng.sample(HEADERS, rng.choice((0, 0, 0, 1, 1, 2, 3, 8)))
    usual = rng.random() < 0.8
    return "".join(line + ("\r\n" if usual else rng.choice(ENDS)) for line in [*lines, ""]).encode(
        "latin-1"
    )


def request(rng: random.Random) -> bytes:
    """Put together of parts, most of them right, and then damaged."""
    text = bytearray(_lines(rng) + rng.choice(BODIES))
    for _ in range(rng.choice((0, 0, 0, 0, 1, 5))):
        at = rng.randrange(len(text) + 1)
        kind = rng.randrange(4)
        if kind == 0:
            text[at : at + 1] = bytes([rng.randrange(256)])
        elif kind == 1:
            del text[at : at + rng.randrange(1, 9)]
        elif kind == 2:
            text[at:at] = rng.choice((b"\r\n", b"\n", b"\r", b" ", b":", b"\0", b"%", b"\xff"))
        else:
            text[at:at] = text[at : at + rng.randrange(1, 60)]
    return bytes(text)


@dataclass
class Answer:
    """Everything that came until the connection ended."""

    sent: bytes
    statuses: list[int] = field(default_factory=list)
    raw: bytes = b""


_HEAD = re.compile(
    rb"HTTP/1\.[01] ([1-5][0-9]{2}) [ -~]*\r\n((?:[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t -~]*\r\n)*)\r\n"
)
_LENGTH = re.compile(rb"(?im)^content-length: ([0-9]+)\r$")


def _read(answer: Answer) -> None:
    """Refuses anything but whole answers, one after the other."""
    rest = answer.raw
    while rest:
        head = _HEAD.match(rest)
        assert head is not None, f"no answer of HTTP: {answer.raw[-1500:]!r} to {answer.sent!r}"
        if rest[head.end() :].startswith(head[0]):
            # libmicrohttpd 0.9.75 says so twice when it is the one that refuses, and closes.
            rest = rest[head.end() :]
        status = int(head[1])
        length = _LENGTH.search(head[2])
        assert length is not None or status == 100, f"of no length: {rest[:300]!r}"
        end = head.end() + (int(length[1]) if length is not None else 0)
        assert len(rest) >= end, f"cut short: {answer.raw[-1500:]!r} to {answer.sent!r}"
        answer.statuses.append(status)
        rest = rest[end:]


class _Talk:
    """One request on its way. Says that no more comes only a little later: libmicrohttpd 0.9.75
    does not see the end of what it has read in one go, and waits for its deadline."""

    def __init__(self, address: str, text: bytes, rng: random.Random) -> None:
        self.answer = Answer(text)
        self.began = time.monotonic()
        self.finished = False  # our side
        self.sock = connect(address)
        cuts = sorted(rng.randrange(len(text) + 1) for _ in range(rng.choice((0, 0, 1, 3))))
        with contextlib.suppress(ConnectionError):  # refused before all of it was sent
            for begin, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
                self.sock.sendall(text[begin:end])
        self.sock.setblocking(False)

    def age(self) -> float:
        return time.monotonic() - self.began

    def finish(self) -> None:
        if not self.finished and self.age() > LINGER_S:
            self.finished = True
            with contextlib.suppress(OSError):
                self.sock.shutdown(socket.SHUT_WR)

    def over(self) -> bool:
        """Takes what has come; true when the other side has closed."""
        try:
            while got := self.sock.recv(65536):
                self.answer.raw += got
        except BlockingIOError:
            return False
        except ConnectionError:
            pass
        self.sock.close()
        return True


def storm(
    addresses: Sequence[str], texts: Iterable[bytes], rng: random.Random, seconds: float
) -> Iterator[Answer]:
    """Sends them all, AT_ONCE at a time and a second for each, and yields each answer once its
    connection has ended."""
    left = iter(texts)
    talks: dict[int, _Talk] = {}
    while True:
        young = sum(talk.age() < 1 for talk in talks.values())
        for text in itertools.islice(left, AT_ONCE - young):
            talk = _Talk(rng.choice(addresses), text, rng)
            talks[talk.sock.fileno()] = talk
        if not talks:
            return
        poll = select.poll()
        for fd in talks:
            poll.register(fd, select.POLLIN)
        for fd, _ in poll.poll(int(LINGER_S * 1000)):
            talk = talks[fd]
            if talk.over():
                del talks[fd]
                _read(talk.answer)
                yield talk.answer
        for talk in talks.values():
            talk.finish()
            if talk.age() > seconds:
                raise TimeoutError(f"{talk.answer.sent!r} hangs after {talk.answer.raw!r}")


def ask(address: str, text: bytes, seconds: float) -> Answer:
    """One request on a connection of its own."""
    return next(storm([address], [text], dice(1), seconds))
