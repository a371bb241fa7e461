"""audited_task.py ADDRESS MEMORY_MIB FATE: one task, and what Python's audit hooks (PEP 578) saw of
it: every program that is started, every file that is written, and code with the model's words in
it. Prints how the task ended, how each call did, and what was seen."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from motte import AsyncMotte, AsyncVm
from motte.agent import (
    Gate,
    Json,
    Policy,
    Reply,
    Rule,
    ScriptedModel,
    ToolResult,
    VmTools,
    WantedCall,
    run_task,
)

MARK = "m4rk3d"  # in all that the model says
DOES = (
    "subprocess.", "os.exec", "os.fork", "os.posix_spawn", "os.system", "os.spawn", "pty.",
    "ctypes.", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "os.link",
    "os.symlink", "os.truncate", "os.kill", "shutil.",
)  # fmt: skip
seen: list[str] = []


def look(event: str, args: tuple[Any, ...]) -> None:
    writes = event == "open" and (set(str(args[1])) & set("wax+") or (args[2] or 0) & 3)
    says = event in ("exec", "compile", "import") and MARK in repr(args)
    if writes or says or event.startswith(DOES):
        seen.append(f"{event} {args}")


class Lost(VmTools):
    """Its VM ends just before the second call."""

    def __init__(self, vm: AsyncVm) -> None:
        super().__init__(vm)
        self.count = 0

    async def call_tool(self, name: str, arguments: Mapping[str, Json]) -> ToolResult:
        self.count += 1
        if self.count == 2:
            await self._vm.delete()
        return await super().call_tool(name, arguments)


class OnTheHost(VmTools):
    """What must never be."""

    async def call_tool(self, name: str, arguments: Mapping[str, Json]) -> ToolResult:
        argv = arguments.get("command", ["true"])
        assert isinstance(argv, list)
        subprocess.run([str(word) for word in argv], check=False)
        return ToolResult("ran")


def wants(tool: str, **arguments: Any) -> WantedCall:
    return WantedCall("1", tool, json.dumps(arguments))


SCRIPT = [
    Reply(MARK, (wants("run", command=["/bin/echo", f"{MARK}-1"]),)),
    Reply(MARK, (wants("run", command=["/bin/echo", f"{MARK}-2"]),)),
    Reply(MARK, (wants("write_file", path=f"/tmp/{MARK}", text=f"import {MARK}"),)),
    Reply(MARK, (WantedCall("1", "run", f"__import__('os').system('{MARK}')"),)),
    Reply(MARK, (wants(f"__import__('{MARK}')"),)),
    Reply(f"exec('{MARK}')"),
]
TOOLS: dict[str, type[VmTools]] = {"works": VmTools, "lost": Lost, "leaks": OnTheHost}


async def main(address: str, memory_mib: int, fate: str) -> None:
    gate = Gate(Policy([Rule.of(tool, "allow") for tool in ("run", "write_file")]))
    async with AsyncMotte(address) as motte, motte.vm(memory_mib=memory_mib) as vm:
        tools = TOOLS[fate](vm)
        sys.addaudithook(look)
        outcome = await run_task(
            MARK, model=ScriptedModel(SCRIPT), vm=vm, mcp_client=tools, gate=gate
        )
        told = [outcome.status, [str(called.end) for called in outcome.calls], seen.copy()]
    print(json.dumps(told))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
