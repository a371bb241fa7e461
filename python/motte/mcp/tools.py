"""What an MCP server of Motte offers: commands, files, snapshots and forks of machines that are its
own."""

from collections.abc import Mapping, Sequence

from ..agent.canonical import Json
from ..agent.loop import clip
from ..agent.tools import Tool, ToolResult
from ..agent.vm_tools import TOOLS as VM_TOOLS
from ..agent.vm_tools import VmTools
from ..aio.vm import AsyncVm
from ..errors import MotteError
from ..problems import VmGone
from .sandbox import MACHINES_MAX, Machines, NoMachine

OUTPUT_MAX = 256 * 1024  # bytes of an answer's text; the middle of more is left out, and said so
ENTRIES_MAX = 1000
LOOKING = frozenset({"read_file", "list_files"})  # these change nothing

_TEXT: Json = {"type": "string"}
_MACHINE: Json = {
    "type": "string",
    "description": "Which machine, by its id: one that fork told. The first if not given.",
}


def _schema(required: Sequence[str], properties: Mapping[str, Json]) -> dict[str, Json]:
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(required),
        "additionalProperties": False,
    }


def _of_a_vm(tool: Tool) -> Tool:
    """A tool of VmTools, of one of several machines."""
    name = "run_command" if tool.name == "run" else tool.name
    properties = tool.schema["properties"]
    assert isinstance(properties, Mapping)
    schema = {**tool.schema, "properties": {**properties, "machine": _MACHINE}}
    return Tool(name, tool.description, schema)


def _timeout() -> Json:
    properties = VM_TOOLS[0].schema["properties"]
    assert isinstance(properties, Mapping)
    return properties["timeout_s"]


TOOLS = (
    *(_of_a_vm(tool) for tool in VM_TOOLS),
    Tool(
        "run_python",
        "Runs a Python program in the machine, given as its text, and waits for its end. Nothing of"
        " it stays but files.",
        _schema(["code"], {"code": _TEXT, "timeout_s": _timeout(), "machine": _MACHINE}),
    ),
    Tool(
        "list_files",
        f"What is in a directory of the machine, {ENTRIES_MAX} entries at most.",
        _schema(
            ["path"],
            {"path": {"type": "string", "description": "Absolute."}, "machine": _MACHINE},
        ),
    ),
    Tool(
        "snapshot",
        "Keeps the machine as it is now, for reset. It stays after this session.",
        _schema([], {"machine": _MACHINE}),
    ),
    Tool(
        "fork",
        "Makes more machines that go on from where this one is. They end with this session.",
        _schema(
            [],
            {
                "count": {"type": "integer", "minimum": 1, "maximum": MACHINES_MAX - 1},
                "machine": _MACHINE,
            },
        ),
    ),
    Tool(
        "reset",
        "Ends all machines of this session, with what is in them, and begins with a fresh one, or"
        " with one that goes on from a snapshot.",
        _schema([], {"snapshot": {"type": "string", "description": "Its id."}}),
    ),
)
SCHEMAS = {tool.name: tool.schema for tool in TOOLS}


class _Wrong(Exception):
    """Arguments that do not fit the schema."""


def _optional_text(given: Mapping[str, Json], name: str) -> str | None:
    value = given.get(name)
    if value is not None and not isinstance(value, str):
        raise _Wrong(f"`{name}` must be a string")
    return value


def _text(given: Mapping[str, Json], name: str) -> str:
    value = _optional_text(given, name)
    if value is None:
        raise _Wrong(f"`{name}` is missing")
    return value


class SandboxTools:
    """They fit McpClient, so that a program that has no use for a protocol can call them itself."""

    def __init__(self, machines: Machines) -> None:
        self._machines = machines

    async def list_tools(self) -> Sequence[Tool]:
        return TOOLS

    async def call_tool(self, name: str, arguments: Mapping[str, Json]) -> ToolResult:
        """Whatever goes wrong is told in the result: who calls cannot see the service."""
        try:
            result = await self._call(name, arguments)
        except (_Wrong, NoMachine) as why:
            return ToolResult(str(why), True)
        except VmGone as gone:
            left = gone.certificate
            how = f" ({left.reason}): {left.message}" if left else ""
            text = f"the machine has ended{how}. What was in it is gone; reset begins a new one."
            return ToolResult(text, True)
        except MotteError as why:
            return ToolResult(str(why), True)
        return ToolResult(clip(result.text, OUTPUT_MAX), result.is_error, result.structured)

    async def _call(self, name: str, given: Mapping[str, Json]) -> ToolResult:
        if name not in SCHEMAS:
            raise _Wrong(f"there is no tool {name!r}, only {', '.join(SCHEMAS)}")
        properties = SCHEMAS[name]["properties"]
        assert isinstance(properties, Mapping)
        for unknown in given.keys() - properties.keys():
            raise _Wrong(f"`{unknown}` is not known")
        if name == "reset":
            return await self._reset(_optional_text(given, "snapshot"))
        rest = {key: value for key, value in given.items() if key != "machine"}
        if name == "run_python":
            name, rest = "run_command", _python(rest)
        if name == "list_files":
            path = _text(rest, "path")
        if name == "fork":
            count = _count(rest)
        vm = await self._machines.get(_optional_text(given, "machine"))
        if name == "list_files":
            return await _list(vm, path)
        if name == "snapshot":
            return await _snapshot(vm)
        if name == "fork":
            return await self._fork(vm, count)
        return await VmTools(vm).call_tool("run" if name == "run_command" else name, rest)

    async def _reset(self, snapshot: str | None) -> ToolResult:
        vm = await self._machines.reset(snapshot)
        return ToolResult(f"the machine is {vm.id}", structured={"machine": vm.id})

    async def _fork(self, vm: AsyncVm, count: int) -> ToolResult:
        ids = [fork.id for fork in await self._machines.fork(vm, count)]
        return ToolResult("\n".join(ids), structured={"machines": [*ids]})


def _python(given: Mapping[str, Json]) -> dict[str, Json]:
    """Through its input: a program may be longer than an argument."""
    command: Json = ["python3", "-"]
    rest = {key: value for key, value in given.items() if key != "code"}
    return {**rest, "command": command, "stdin": _text(given, "code")}


def _count(given: Mapping[str, Json]) -> int:
    count = given.get("count", 1)
    if type(count) is not int or not 1 <= count < MACHINES_MAX:
        raise _Wrong(f"`count` must be an integer, 1 to {MACHINES_MAX - 1}")
    return count


async def _list(vm: AsyncVm, path: str) -> ToolResult:
    lines, entries = [], 0
    async for entry in vm.files(path):
        if entries == ENTRIES_MAX:
            lines.append(f"[only the first {ENTRIES_MAX}]")
            break
        entries += 1
        name = entry.name if entry.name is not None else f"[base64 {entry.name_base64}]"
        target = f" -> {entry.target}" if entry.target is not None else ""
        lines.append(f"{entry.mode} {entry.type} {entry.size} {name}{target}")
    return ToolResult("\n".join(lines) or "[empty]")


async def _snapshot(vm: AsyncVm) -> ToolResult:
    kept = await vm.snapshot({"made-by": "motte-mcp"})
    return ToolResult(kept.id, structured={"snapshot": kept.id})
