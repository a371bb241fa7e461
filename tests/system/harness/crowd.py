"""Many connections at once, of clients that mean no good."""

import resource
import select
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

FILES = 65536


@contextmanager
def many_files() -> Iterator[None]:
    """Room in this process for the clients' ends."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(FILES, before[1]), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def connect(address: str) -> socket.socket:
    """`address`: unix:/PATH or tcp:HOST:PORT."""
    kind, _, place = address.partition(":")
    family = socket.AF_UNIX if kind == "unix" else socket.AF_INET
    sock = socket.socket(family)
    sock.settimeout(20)
    host, _, port = place.rpartition(":")
    sock.connect(place if kind == "unix" else (host, int(port)))
    return sock


def ended(sock: socket.socket) -> bool:
    """The other end has closed it."""
    sock.setblocking(False)
    try:
        return sock.recv(65536) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


class Crowd:
    """Connections to one address that stay, silent or slow, until they are cut."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.began = time.monotonic()
        self.sockets: list[socket.socket] = []

    def add(self, count: int, opening: bytes = b"") -> None:
        for _ in range(count):
            self.sockets.append(connect(self.address))
            with suppress(OSError):  # cut already: there are too many
                self.sockets[-1].sendall(opening)

    def drip(self) -> None:
        """One byte from each."""
        for sock in self.sockets:
            with suppress(OSError):
                sock.send(b"x", socket.MSG_DONTWAIT)

    def standing(self) -> int:
        """How many have not been cut; forgets those that were."""
        poll = select.poll()
        by_fd = {sock.fileno(): sock for sock in self.sockets}
        for fd in by_fd:
            poll.register(fd, select.POLLIN)
        for fd, _ in poll.poll(0):
            if ended(by_fd[fd]):
                by_fd.pop(fd).close()
        self.sockets = list(by_fd.values())
        return len(self.sockets)

    def close(self) -> None:
        for sock in self.sockets:
            sock.close()
        self.sockets = []


@contextmanager
def crowd(address: str, count: int = 0, opening: bytes = b"") -> Iterator[Crowd]:
    made = Crowd(address)
    try:
        made.add(count, opening)
        yield made
    finally:
        made.close()


def timed(what: Callable[[], object]) -> float:
    began = time.monotonic()
    what()
    return time.monotonic() - began
