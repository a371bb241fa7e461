"""Commands that are watched: calls.py for /vms/{id}/execs."""

import base64
import dataclasses
from collections.abc import Sequence

from .call import Call, Page, given, nothing, reads, reads_list, unread
from .calls import ASYNC, ExecOptions, command_fields
from .models import ExecInfo, ExecOutput, InputState, Pty


class ExecSpec(ExecOptions, total=False):
    """`stdin_open`: more input may come. `pty`: run on a terminal; all output is stdout then."""

    stdin_open: bool
    pty: Pty


def create_exec(vm_id: str, command: str | Sequence[str], options: ExecSpec) -> Call[ExecOutput]:
    """Answered as soon as it has begun."""
    body = {**command_fields(command), **given(**options)}
    if isinstance(pty := body.get("pty"), Pty):
        body["pty"] = dataclasses.asdict(pty)
    return Call("createExec", reads(ExecOutput), (vm_id,), body, headers=ASYNC)


def list_execs(vm_id: str) -> Call[Page[ExecInfo]]:
    return Call("listExecs", reads_list(ExecInfo, "execs"), (vm_id,))


def get_exec(ids: tuple[str, str]) -> Call[ExecOutput]:
    return Call("getExec", reads(ExecOutput), ids)


def kill_exec(ids: tuple[str, str]) -> Call[None]:
    return Call("killExec", nothing, ids)


def watch_exec(ids: tuple[str, str]) -> Call[None]:
    return Call("watchExec", unread, ids, stream=True)


def feed_exec(ids: tuple[str, str], offset: int, data: bytes, eof: bool) -> Call[InputState]:
    body = {"offset": offset, "base64": base64.b64encode(data).decode(), "eof": eof}
    return Call("feedExec", reads(InputState), ids, body)


def resize_exec(ids: tuple[str, str], rows: int, cols: int) -> Call[None]:
    return Call("resizeExec", nothing, ids, {"rows": rows, "cols": cols})
