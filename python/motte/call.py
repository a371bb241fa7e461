"""A request as a value, and how its answer reads: the HTTP contract without input or output."""

import dataclasses
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import httpx

from .errors import BadAnswer
from .parse import parse
from .problems import Problem, error_of

T = TypeVar("T")
BRACES = re.compile(r"\{\w+\}")
ID = re.compile(r"[A-Za-z0-9_-]{1,64}")

# By operationId of openapi.yaml.
ROUTES = {
    "createVm": ("POST", "/vms"),
    "listVms": ("GET", "/vms"),
    "getVm": ("GET", "/vms/{id}"),
    "deleteVm": ("DELETE", "/vms/{id}"),
    "keepVmAlive": ("POST", "/vms/{id}/keepalive"),
    "pauseVm": ("POST", "/vms/{id}/pause"),
    "resumeVm": ("POST", "/vms/{id}/resume"),
    "snapshotVm": ("POST", "/vms/{id}/snapshots"),
    "forkVm": ("POST", "/vms/{id}/fork"),
    "execInVm": ("POST", "/vms/{id}/exec"),
    "createExec": ("POST", "/vms/{id}/execs"),
    "listExecs": ("GET", "/vms/{id}/execs"),
    "getExec": ("GET", "/vms/{id}/execs/{eid}"),
    "killExec": ("DELETE", "/vms/{id}/execs/{eid}"),
    "watchExec": ("GET", "/vms/{id}/execs/{eid}/events"),
    "feedExec": ("POST", "/vms/{id}/execs/{eid}/stdin"),
    "resizeExec": ("POST", "/vms/{id}/execs/{eid}/resize"),
    "putFile": ("PUT", "/vms/{id}/files"),
    "getFile": ("GET", "/vms/{id}/files"),
    "deleteFile": ("DELETE", "/vms/{id}/files"),
    "listFiles": ("GET", "/vms/{id}/ls"),
    "putArchive": ("PUT", "/vms/{id}/archive"),
    "getArchive": ("GET", "/vms/{id}/archive"),
    "patchVm": ("PATCH", "/vms/{id}"),
    "waitForVm": ("GET", "/vms/{id}/wait"),
    "getVmStats": ("GET", "/vms/{id}/stats"),
    "getIsolation": ("GET", "/vms/{id}/isolation"),
    "getConsole": ("GET", "/vms/{id}/console"),
    "getAudit": ("GET", "/vms/{id}/audit"),
    "watchEvents": ("GET", "/events"),
    "listSnapshots": ("GET", "/snapshots"),
    "getSnapshot": ("GET", "/snapshots/{id}"),
    "deleteSnapshot": ("DELETE", "/snapshots/{id}"),
    "listImages": ("GET", "/images"),
    "getCapabilities": ("GET", "/capabilities"),
}


@dataclass(frozen=True)
class Call(Generic[T]):
    """`ids`: for the braces of the route. `extra_s`: how much longer than other answers this one
    may take. `content`: the body, or the file that has it."""

    operation: str
    read: Callable[[httpx.Response], T]
    ids: tuple[str, ...] = ()
    body: Mapping[str, object] | None = None
    content: bytes | Path | None = None
    query: Mapping[str, str | int | Sequence[str]] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    extra_s: float = 0
    stream: bool = False

    @property
    def method(self) -> str:
        return ROUTES[self.operation][0]

    @property
    def path(self) -> str:
        path = ROUTES[self.operation][1]
        for one in self.ids:
            if not ID.fullmatch(one):
                raise ValueError(f"{one!r} is no id: use 1 to 64 of A-Z a-z 0-9 _ -")
            path = BRACES.sub(one, path, count=1)
        return path


@dataclass(frozen=True)
class Page(Generic[T]):
    items: tuple[T, ...]
    next_cursor: str | None


# -- reading ---------------------------------------------------------------------------------------


def _json(response: httpx.Response) -> dict[str, object]:
    try:
        told = json.loads(response.content)
    except ValueError:
        told = None
    if isinstance(told, dict):
        return told
    kind = response.headers.get("content-type", "no type")
    raise BadAnswer(f"{response.status_code} with a body that is no JSON object ({kind})")


def _retry_after(response: httpx.Response) -> float | None:
    said = response.headers.get("retry-after", "")
    return float(said) if said.isdecimal() else None


def raise_for_problem(response: httpx.Response) -> None:
    """The body has been read."""
    if response.status_code < 400:
        return
    problem = parse(
        Problem, {"context": {}, **_json(response), "retry_after_s": None}, "the problem"
    )
    raise error_of(dataclasses.replace(problem, retry_after_s=_retry_after(response)))


def reads(kind: type[T]) -> Callable[[httpx.Response], T]:
    return lambda response: parse(kind, _json(response))


def reads_list(kind: type[T], name: str) -> Callable[[httpx.Response], Page[T]]:
    def read(response: httpx.Response) -> Page[T]:
        told = _json(response)
        items, cursor = told.get(name), told.get("next_cursor")
        if not isinstance(items, list) or not isinstance(cursor, str | None):
            raise BadAnswer(
                f"the answer has no list `{name}`, or a `next_cursor` that is no string"
            )
        read_all = (parse(kind, item, f"{name}[{at}]") for at, item in enumerate(items))
        return Page(tuple(read_all), cursor)

    return read


def reads_bytes(response: httpx.Response) -> bytes:
    return response.content


def unread(_: httpx.Response) -> None:
    """Of a stream, which is not read at once."""


def nothing(_: httpx.Response) -> None:
    return None


def given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}
