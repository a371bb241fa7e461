"""Where the service is, and when a request is sent again; for both clients."""

import os
import ssl
import time
import uuid
from dataclasses import dataclass
from typing import Any

import httpx

from .call import Call
from .errors import MotteError, Unreachable
from .problems import Conflict, Unavailable

SOCKET = "/run/motte/motte.sock"
CONNECT_S = 10.0
QUIET_S = 40.0  # in a stream, which the service breaks with a comment every 15 s
FIRST_PAUSE_S, LAST_PAUSE_S = 0.05, 1.0
NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


@dataclass(frozen=True)
class Place:
    """The path of a Unix socket, or a base URL and a token, which repr() does not show."""

    socket: str | None
    url: str
    headers: dict[str, str]
    tls: ssl.SSLContext | bool

    def __repr__(self) -> str:
        return self.socket or self.url


def place(address: str | None, token: str | None, ca: str | None) -> Place:
    """Defaults: MOTTE_ADDRESS, MOTTE_TOKEN and MOTTE_CA of the environment, then the service's own
    socket, and the authorities that the system trusts."""
    ca = ca or os.environ.get("MOTTE_CA")
    address = address or os.environ.get("MOTTE_ADDRESS") or SOCKET
    token = token or os.environ.get("MOTTE_TOKEN")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    if address.startswith(("http://", "https://")):
        encrypted = address.startswith("https://")
        tls = encrypted and ssl.create_default_context(cafile=ca)
        return Place(None, address, headers, tls)
    socket = address.removeprefix("unix:")
    if not socket.startswith("/"):
        raise ValueError(f"{address!r} is no address: use /path/of/a.sock or https://HOST:PORT")
    return Place(socket, "http://motte", headers, False)


class Tries:
    """How often one call is sent: until it works or `retry_s` have gone by since it first failed.
    What it says is done once all the same: a POST has an Idempotency-Key, and to do the others
    twice is to do them once."""

    def __init__(self, call: Call[Any], where: Place, timeout_s: float, retry_s: float) -> None:
        self.call = call
        self.where = where
        self.retry_s = retry_s
        self.answer_s = QUIET_S if call.stream else timeout_s + call.extra_s
        self.headers = dict(call.headers)
        if call.method == "POST":
            self.headers["Idempotency-Key"] = str(uuid.uuid4())
        self.went_well(None)

    def arguments(self) -> dict[str, Any]:
        """For request() and stream() of httpx's clients."""
        return {
            "method": self.call.method,
            "url": self.call.path,
            "params": dict(self.call.query),
            "json": self.call.body,
            "content": self.call.content,
            "headers": self.headers,
            "timeout": httpx.Timeout(self.answer_s, connect=CONNECT_S),
        }

    def went_well(self, event_id: str | None) -> None:
        """What comes now is a first failure, and a stream goes on behind this event."""
        if event_id is not None:
            self.headers["Last-Event-ID"] = event_id
        self.failed_at: float | None = None
        self.pause_s = FIRST_PAUSE_S

    def pause_after(self, failure: httpx.TransportError | Unavailable | Conflict) -> float:
        """How long to wait before the next, or raises what this failure means to the caller."""
        now = time.monotonic()
        self.failed_at = self.failed_at or now
        pause, left = self.pause_s, self.failed_at + self.retry_s - now
        self.pause_s = min(2 * self.pause_s, LAST_PAUSE_S)
        again = True
        if isinstance(failure, httpx.ReadTimeout):
            again = self.call.stream  # where silence is a sign; elsewhere it is the caller's wish
        elif isinstance(failure, Unavailable):
            again = failure.problem.retry_after_s is not None
            pause = max(pause, failure.problem.retry_after_s or 0)
        elif isinstance(failure, Conflict):
            # The one that was cut off is still being worked on: its answer is what we wait for.
            again = failure.code == "idempotency_key_in_use"
            left = self.failed_at + self.answer_s - now
        if again and pause <= left:
            return pause
        if isinstance(failure, httpx.TransportError):
            raise self._unreachable(failure) from failure
        raise failure

    def _unreachable(self, failure: httpx.TransportError) -> MotteError:
        what = f"{self.call.method} {self.call.path}"
        if isinstance(failure, NOT_SENT):
            return Unreachable(f"cannot reach {self.where!r}: {failure}. Is motted running there?")
        if isinstance(failure, httpx.TimeoutException):
            return Unreachable(f"{self.where!r} did not answer {what} in time; GET tells what is")
        why = str(failure) or type(failure).__name__
        return Unreachable(f"the connection to {self.where!r} ended during {what}: {why}")
