"""Tools of one VM: run a command, read and write a file. They fit McpClient, and a server can offer
them over MCP."""

import asyncio
from collections.abc import Mapping, Sequence

from ..aio.vm import AsyncVm
from ..calls import ExecOptions
from ..models import ExecResult, Outputs
from ..problems import ApiError, CommandTimeout, InvalidRequest
from .canonical import Json
from .tools import Tool, ToolResult

TIMEOUT_S, TIMEOUT_MAX_S = 60, 3600
READ_MAX = 1 << 20  # bytes
KILL_S = 5.0
OWN_WORD = ("file_not_found", "guest_refused", "guest_full", "rate_limited")  # the VM is well


def _object(required: list[str], **properties: Json) -> dict[str, Json]:
    return {
        "type": "object",
        "properties": properties,
        "required": [*required],
        "additionalProperties": False,
    }


_TEXT: Json = {"type": "string"}
_PATH: Json = {"type": "string", "description": "Absolute."}
TOOLS = (
    Tool(
        "run",
        "Runs a command in the machine and waits for its end. A string is for the shell, an array"
        " is a program and its arguments. Files and processes stay from one call to the next, the"
        " working directory does not. There is no network.",
        _object(
            ["command"],
            command={"anyOf": [_TEXT, {"type": "array", "items": _TEXT, "minItems": 1}]},
            stdin={"type": "string", "description": "At most 256 KiB."},
            timeout_s={
                "type": "integer",
                "minimum": 1,
                "maximum": TIMEOUT_MAX_S,
                "description": f"{TIMEOUT_S} if not given.",
            },
        ),
    ),
    Tool(
        "read_file",
        f"The text of a file in the machine, its first {READ_MAX} bytes at most.",
        _object(["path"], path=_PATH),
    ),
    Tool(
        "write_file",
        "Writes a file in the machine, all of it, and the directories that lead to it.",
        _object(["path", "text"], path=_PATH, text=_TEXT),
    ),
)
NAMES = frozenset(tool.name for tool in TOOLS)


class _Wrong(Exception):
    """Arguments that do not fit the schema."""


class _Arguments:
    """A call's, taken one by one; end() says which nobody took."""

    def __init__(self, given: Mapping[str, Json]) -> None:
        self._left = dict(given)

    def text(self, name: str) -> str:
        value = self._left.pop(name, None)
        if not isinstance(value, str):
            raise _Wrong(f"`{name}` must be a string")
        return value

    def command(self) -> str | list[str]:
        value = self._left.pop("command", None)
        if isinstance(value, str) and value:
            return value
        if not isinstance(value, list) or not value:
            raise _Wrong("`command` must be a string, or an array of strings")
        words = [word for word in value if isinstance(word, str)]
        if len(words) != len(value):
            raise _Wrong("`command` must be a string, or an array of strings")
        return words

    def options(self) -> ExecOptions:
        seconds = self._left.pop("timeout_s", TIMEOUT_S)
        if type(seconds) is not int or not 1 <= seconds <= TIMEOUT_MAX_S:
            raise _Wrong(f"`timeout_s` must be an integer, 1 to {TIMEOUT_MAX_S}")
        options = ExecOptions(timeout_ms=seconds * 1000)
        if "stdin" in self._left:
            options["stdin"] = self.text("stdin")
        return options

    def end(self) -> None:
        if self._left:
            raise _Wrong(f"`{next(iter(self._left))}` is not known")


def _written(outputs: Outputs) -> str:
    """stdout as it is; what else there is, under a heading."""
    parts = [outputs.stdout]
    if outputs.stdout_truncated:
        parts.append("[not all of stdout was kept]")
    if outputs.stderr:
        parts.append(f"[stderr]\n{outputs.stderr}")
    if outputs.stderr_truncated:
        parts.append("[not all of stderr was kept]")
    return "\n".join(part for part in parts if part)


def _ran(done: ExecResult) -> ToolResult:
    text = _written(done)
    if done.exit_code != 0 or not text:
        how = f"signal {done.signal}" if done.exit_code is None else f"exit code {done.exit_code}"
        memory = ", out of memory" if done.oom_killed else ""
        text = f"{text}\n[{how}{memory}]" if text else f"[{how}{memory}]"
    told: dict[str, Json] = {
        "exit_code": done.exit_code,
        "signal": done.signal,
        "oom_killed": done.oom_killed,
        "duration_ms": done.duration_ms,
    }
    return ToolResult(text, done.exit_code != 0, told)


def _failed(text: str, error: str) -> ToolResult:
    return ToolResult(text, True, {"error": error})


async def _run(vm: AsyncVm, command: str | list[str], options: ExecOptions) -> ExecResult:
    """Watched, so that a call which is given up ends its command. In a task of its own, since who
    gives up may not let us wait for that; who does waits for `KILL_S` at most."""
    running = asyncio.ensure_future(vm.run(command, on_output=lambda _: None, **options))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        running.cancel()
        await asyncio.wait({running}, timeout=KILL_S)
        raise


class VmTools:
    """Of this VM and no other: an end of it is an end of them."""

    def __init__(self, vm: AsyncVm) -> None:
        self._vm = vm

    async def list_tools(self) -> Sequence[Tool]:
        return TOOLS

    async def call_tool(self, name: str, arguments: Mapping[str, Json]) -> ToolResult:
        """Raises what says nothing about the call: the VM is gone, the service does not answer."""
        if name not in NAMES:
            return _failed(f"there is no tool {name!r}", "no_tool")
        try:
            return await self._call(name, _Arguments(arguments))
        except _Wrong as why:
            return _failed(str(why), "arguments")
        except CommandTimeout as late:
            seconds = late.outputs.duration_ms / 1000
            return _failed(f"{_written(late.outputs)}\n[ended after {seconds:.1f} s]", late.code)
        except ApiError as why:
            if not isinstance(why, InvalidRequest) and why.code not in OWN_WORD:
                raise
            return _failed(str(why), why.code)

    async def _call(self, name: str, given: _Arguments) -> ToolResult:
        if name == "run":
            command, options = given.command(), given.options()
            given.end()
            return _ran(await _run(self._vm, command, options))
        path = given.text("path")
        if name == "write_file":
            text = given.text("text")
            given.end()
            told = await self._vm.write_file(path, text, parents=True)
            return ToolResult(f"{told.size} bytes written")
        given.end()
        data = await self._vm.read_file(path, most=READ_MAX)
        note = f"\n[the first {READ_MAX} bytes]" if len(data) == READ_MAX else ""
        return ToolResult(data.decode("utf-8", "replace") + note)
