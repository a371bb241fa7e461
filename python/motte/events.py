"""Server-sent events, from the bytes of a stream as they come."""

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Event:
    """`id`: what to give as Last-Event-ID to go on behind it."""

    name: str
    data: str
    id: str | None


class Events:
    """Of one connection. What a stream ends in the middle of is no event."""

    def __init__(self) -> None:
        self._rest = b""
        self._fields: dict[str, list[str]] = {}

    def feed(self, piece: bytes) -> Iterator[Event]:
        *lines, self._rest = (self._rest + piece).split(b"\n")
        for line in lines:
            if text := line.removesuffix(b"\r").decode("utf-8", "replace"):
                name, _, value = text.partition(":")
                self._fields.setdefault(name, []).append(value.removeprefix(" "))
            elif "data" in self._fields:
                yield self._event()
            else:
                self._fields = {}

    def _event(self) -> Event:
        fields, self._fields = self._fields, {}
        name, last_id = fields.get("event", ["message"])[-1], fields.get("id", [None])[-1]
        return Event(name, "\n".join(fields["data"]), last_id)
