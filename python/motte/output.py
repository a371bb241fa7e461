"""What a command writes, as it comes, and what of it is kept."""

import base64
import json
from dataclasses import dataclass

from .errors import BadAnswer
from .events import Event
from .models import AuditEntry, ExecInfo, ExecResult, MissedEvents
from .parse import parse
from .problems import CommandLost, CommandTimeout, Problem

STREAMS = ("stdout", "stderr", "console")
KEPT_MAX = 1 << 20  # a stream, as an exec that is waited for keeps


@dataclass(frozen=True, slots=True)
class Chunk:
    """`stream`: `stdout` or `stderr`, or `console` of a VM; or `gap`, where `dropped_bytes` of all
    are missing, which were overwritten before they were read (None: nobody knows how many)."""

    stream: str
    data: bytes
    dropped_bytes: int | None = 0


@dataclass(frozen=True, slots=True)
class Gap:
    dropped_bytes: int | None


@dataclass(frozen=True, slots=True)
class Ended:
    instance: str


def _object(event: Event) -> dict[str, object]:
    try:
        told = json.loads(event.data)
    except ValueError:
        told = None
    if not isinstance(told, dict):
        raise BadAnswer(f"an event `{event.name}` that is no JSON object")
    return told


def chunk_of(event: Event) -> Chunk | None:
    """None for events that a newer service may have."""
    if event.name in STREAMS:
        try:
            return Chunk(event.name, base64.b64decode(event.data, validate=True))
        except ValueError:
            raise BadAnswer(f"an event `{event.name}` that is no base64") from None
    if event.name == "gap":
        return Chunk("gap", b"", parse(Gap, _object(event), "the gap").dropped_bytes)
    return None


def record_of(event: Event) -> ExecInfo:
    return parse(ExecInfo, _object(event), "the command's record")


def instance_of(event: Event) -> str:
    """Whose end it tells."""
    return parse(Ended, _object(event), "the end").instance


def entry_of(event: Event) -> AuditEntry | MissedEvents | None:
    """None for the first of a stream, which only has a place to go on from."""
    if event.name == "start":
        return None
    if event.name == "gap":
        return parse(MissedEvents, _object(event), "the gap")
    return parse(AuditEntry, _object(event), f"the event `{event.name}`")


class Kept:
    """Of all chunks what an exec that is waited for would have told."""

    def __init__(self) -> None:
        self._streams = {"stdout": bytearray(), "stderr": bytearray()}
        self._truncated = {"stdout": False, "stderr": False}

    def add(self, chunk: Chunk) -> None:
        if chunk.stream == "gap":
            self._truncated = dict.fromkeys(self._truncated, True)
            return
        kept = self._streams[chunk.stream]
        room = KEPT_MAX - len(kept)
        kept += chunk.data[:room]
        self._truncated[chunk.stream] |= len(chunk.data) > room

    def result(self, info: ExecInfo) -> ExecResult:
        """Or what a problem says of a command that did not end by itself."""
        outputs: dict[str, object] = {
            **{name: kept.decode("utf-8", "replace") for name, kept in self._streams.items()},
            **{f"{name}_truncated": cut for name, cut in self._truncated.items()},
            "duration_ms": info.duration_ms or 0,
        }
        if info.timed_out:
            raise CommandTimeout(_problem("exec_timeout", 504, "it ran out of time", outputs))
        if info.state == "lost":
            why = f"nobody knows how it ended ({info.reason}): {info.message}"
            raise CommandLost(_problem("exec_lost", 410, why, {}))
        ended = {"exit_code": info.exit_code, "signal": info.signal}
        return parse(ExecResult, {**outputs, **ended, "oom_killed": info.oom_killed})


def _problem(code: str, status: int, detail: str, context: dict[str, object]) -> Problem:
    advice = "Raise timeout_ms, or run it again."
    return Problem(code, status, detail, f"of the command: {detail}", advice, "", context)
