"""MCP: what outside clients see of the server, and ours of any; machines end with their server."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from mcp.server import Server
from mcp_types import CallToolResult, ListToolsResult, PaginatedRequestParams
from mcp_types import Tool as McpTool

from harness.backend import Backend
from harness.daemon import Daemon
from harness.waiting import wait_until
from motte import AsyncMotte, Motte, MotteError, Snapshot
from motte.agent import Gate, Policy, Question, Refused, ToolCall, Verdict, execute_tool
from motte.mcp import Machines, McpClient, McpFailed, SandboxTools, server_of
from motte.mcp.main import main
from motte.mcp.sandbox import NoMachine
from motte.mcp.tools import TOOLS
from test_tcp import free_port

ROOT = Path(__file__).parents[2]
INSPECTOR = ROOT / "build" / "npm" / "node_modules" / ".bin" / "mcp-inspector"
SERVER = [sys.executable, "-m", "motte.mcp"]
WORD = "known-to-this-test-alone"
NAMES = {tool.name for tool in TOOLS}


@pytest.fixture
def environment(shared: Daemon) -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT / "python"),
        "MOTTE_ADDRESS": str(shared.socket_path),
        "MOTTE_MCP_TOKEN": WORD,
    }


def none_left(motte: Motte) -> bool:
    return list(motte.vms()) == []


@contextmanager
def over_http(environment: dict[str, str], backend: Backend) -> Iterator[str]:
    port = free_port()
    argv = [*SERVER, f"--http={port}", f"--memory-mib={backend.memory_mib}"]
    with subprocess.Popen(argv, env=environment) as server:
        url = f"http://127.0.0.1:{port}/mcp"
        try:
            wait_until(lambda: answers(url) == 401, 20)
            yield url
        finally:
            server.send_signal(signal.SIGTERM)
            assert server.wait(30) in (0, -signal.SIGTERM)


def answers(url: str, **headers: str) -> int | None:
    try:
        return httpx.post(url, json={}, headers=headers).status_code
    except httpx.TransportError:
        return None


def inspect(url: str, *arguments: str) -> dict[str, Any]:
    """By the official inspector."""
    argv = [str(INSPECTOR), "--cli", url, "--transport", "http"]
    argv += ["--header", f"Authorization: Bearer {WORD}", *arguments]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode in (0, 5), done.stdout + done.stderr  # 5: a tool said it failed
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def call(url: str, tool: str, *pairs: str) -> str:
    arguments = [word for pair in pairs for word in ("--tool-arg", pair)]
    told = inspect(url, "--method", "tools/call", "--tool-name", tool, *arguments)
    text: str = told["content"][0]["text"]
    return text


@pytest.mark.linux
@pytest.mark.timeout(300)
def test_R33_the_official_inspector_uses_every_tool(
    motte: Motte, environment: dict[str, str], backend: Backend
) -> None:
    with over_http(environment, backend) as url:
        assert {tool["name"] for tool in inspect(url, "--method", "tools/list")["tools"]} == NAMES
        assert none_left(motte), "a machine is made when it is needed"
        assert call(url, "run_python", "code=print(6*7)") == "42\n"
        assert call(url, "run_command", "command=cat", "stdin=in") == "in"
        assert call(url, "write_file", "path=/root/d/f", "text=kept") == "4 bytes written"
        assert call(url, "read_file", "path=/root/d/f") == "kept"
        assert call(url, "list_files", "path=/root/d") == "0644 file 4 f"
        fork = call(url, "fork")
        assert call(url, "read_file", "path=/root/d/f", f"machine={fork}") == "kept"
        kept = call(url, "snapshot")
        assert "exit code 3" in call(url, "run_command", "command=rm -r /root/d; exit 3")
        call(url, "reset", f"snapshot={kept}")
        assert call(url, "read_file", "path=/root/d/f") == "kept"
        assert "no machine" in call(url, "read_file", "path=/root/d/f", f"machine={fork}")
        assert len(list(motte.vms())) == 1
    assert none_left(motte)
    motte.delete_snapshot(kept)


@pytest.mark.testguest
def test_R33_http_is_for_who_knows_the_token(
    environment: dict[str, str], backend: Backend, motte: Motte
) -> None:
    with over_http(environment, backend) as url:
        bearer = f"Bearer {WORD}"
        assert answers(url, authorization=bearer + "x") == 401
        assert answers(url, authorization=bearer, origin="http://evil.example") == 403
        assert answers(url, authorization=bearer, host="evil.example") == 421
        assert answers(url, authorization=bearer) == 400, "no message of the protocol"
    assert none_left(motte)


@pytest.mark.testguest
@pytest.mark.parametrize(
    ("place", "word", "why"),
    [
        ("0.0.0.0:1", WORD, "loopback"),
        ("127.0.0.2:1", WORD, "loopback"),
        ("1", "short", "16 characters"),
        ("1", "", "16 characters"),
        ("x", WORD, "no port"),
    ],
)
def test_R33_a_place_that_is_open_to_others_is_refused(
    monkeypatch: pytest.MonkeyPatch, place: str, word: str, why: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["motte-mcp", f"--http={place}"])
    monkeypatch.setenv("MOTTE_MCP_TOKEN", word)
    with pytest.raises(SystemExit, match=f"^motte-mcp: .*{why}"):
        main()


@pytest.mark.testguest
def test_R33_a_session_over_stdio_ends_with_its_machine(
    motte: Motte, environment: dict[str, str], backend: Backend
) -> None:
    async def use() -> None:
        arguments = [*SERVER[1:], f"--memory-mib={backend.memory_mib}"]
        async with McpClient.stdio(SERVER[0], *arguments, environment=environment) as client:
            assert {tool.name for tool in await client.list_tools()} == NAMES
            done = await client.call_tool("run_command", {"command": ["echo", "on"]})
            assert (done.text, done.is_error) == ("on\n", False)
            assert done.structured is not None
            assert done.structured["exit_code"] == 0
            wrong = await client.call_tool("run_command", {"command": ["echo"], "cwd": "/"})
            assert wrong.is_error
            assert "cwd" in wrong.text
            assert len(list(motte.vms())) == 1

    asyncio.run(use())
    wait_until(lambda: none_left(motte), 20)


@pytest.mark.testguest
@pytest.mark.parametrize(
    ("number", "early"),
    [(signal.SIGTERM, False), (signal.SIGKILL, False), (signal.SIGTERM, True)],
    ids=["SIGTERM", "SIGKILL", "SIGTERM-while-one-is-made"],
)
def test_R34_a_server_that_is_ended_leaves_no_machine_for_ever(
    motte: Motte, environment: dict[str, str], backend: Backend, number: signal.Signals, early: bool
) -> None:
    argv = [*SERVER, f"--memory-mib={backend.memory_mib}"]
    hello = {"protocolVersion": "2025-06-18", "capabilities": {},
             "clientInfo": {"name": "t", "version": "0"}}  # fmt: skip
    run = {"name": "run_command", "arguments": {"command": ["echo", "on"]}}
    messages: list[dict[str, Any]] = [
        {"id": 1, "method": "initialize", "params": hello},
        {"method": "notifications/initialized"},
        {"id": 2, "method": "tools/call", "params": run},
    ]
    with subprocess.Popen(
        argv, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        for message in messages:
            server.stdin.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
            server.stdin.flush()
            if early and message.get("id") == 2:
                wait_until(lambda: not none_left(motte), 20)
            elif "id" in message:
                assert json.loads(server.stdout.readline())["id"] == message["id"]
        vms = [] if early else list(motte.vms())
        server.send_signal(number)
        server.wait(20)  # its input is still open
    if number == signal.SIGKILL:
        (vm,) = vms
        assert vm.info.expires_at is not None
        vm.delete()
    assert none_left(motte)


@pytest.mark.testguest
def test_R33_R34_a_call_runs_with_its_approval_and_a_lost_machine_is_never_replaced_unasked(
    shared: Daemon, motte: Motte, backend: Backend
) -> None:
    asked: list[Question] = []

    async def approve(question: Question) -> Verdict:
        asked.append(question)
        return Verdict(question.digest, "echo" in question.arguments)

    async def use() -> None:
        async with (
            AsyncMotte(str(shared.socket_path)) as service,
            Machines(service, memory_mib=backend.memory_mib) as machines,
            McpClient.of(server_of(SandboxTools(machines))) as client,
        ):
            gate = Gate(Policy(), approve)
            good = ToolCall.of("1", "run_command", {"command": ["echo", "on"]})
            with pytest.raises(Refused):
                await execute_tool(good, client, gate)
            await gate.ask(good)
            assert (await execute_tool(good, client, gate)).text == "on\n"
            with pytest.raises(Refused):
                await gate.ask(ToolCall.of("2", "run_command", {"command": ["sleep", "1"]}))
            (vm,) = motte.vms()
            vm.delete()
            for _ in range(2):
                lost = await client.call_tool("run_command", {"command": ["echo", "on"]})
                assert lost.is_error
                assert "reset begins a new one" in lost.text
            assert none_left(motte)
            assert not (await client.call_tool("reset", {})).is_error
            again = await client.call_tool("run_command", {"command": ["echo", "again"]})
            assert again.text == "again\n"

    asyncio.run(use())
    assert len(asked) == 2
    assert none_left(motte)


def in_machines(
    daemon: Daemon, backend: Backend, use: Callable[[Machines], Awaitable[None]], **options: Any
) -> None:
    async def main() -> None:
        async with (
            AsyncMotte(str(daemon.socket_path)) as service,
            Machines(service, memory_mib=backend.memory_mib, **options) as machines,
        ):
            await use(machines)

    asyncio.run(main())


@pytest.mark.testguest
@pytest.mark.parametrize("ends", [False, True], ids=["goes-on", "ends"])
def test_R34_a_machine_whose_first_call_was_given_up_is_not_lost(
    shared: Daemon, motte: Motte, backend: Backend, ends: bool
) -> None:
    ended: list[Machines] = []

    async def use(machines: Machines) -> None:
        first = asyncio.ensure_future(machines.get(None))
        async with asyncio.timeout(20):
            while await asyncio.to_thread(none_left, motte):
                await asyncio.sleep(0.005)
        first.cancel()
        with suppress(asyncio.CancelledError):
            await first
        ended.append(machines)
        if not ends:
            vm = await machines.get(None)
            assert [one.id for one in motte.vms()] == [vm.id]

    in_machines(shared, backend, use)
    assert none_left(motte)
    with pytest.raises(NoMachine, match="is ending"):
        asyncio.run(ended[0].get(None))
    assert none_left(motte)


@pytest.mark.testguest
def test_R34_a_reset_that_fails_is_told_until_one_succeeds(
    shared: Daemon, motte: Motte, backend: Backend
) -> None:
    kept: list[Snapshot] = []

    async def use(machines: Machines) -> None:
        vm = await machines.get(None)
        for absent in ("none", "../none"):
            with pytest.raises(MotteError):
                await machines.reset(absent)
        assert (await machines.get(None)).id == vm.id, "nothing was changed"
        kept.append(await vm.snapshot())
        machines._options["image"] = "absent"
        with pytest.raises(MotteError, match="absent"):
            await machines.reset(None)
        for _ in range(2):
            with pytest.raises(NoMachine, match=r"^reset failed: .*; call reset$"):
                await machines.get(None)
        assert none_left(motte)
        again = await machines.reset(kept[0].id)
        assert (await machines.get(None)).id == again.id

    in_machines(shared, backend, use)
    motte.delete_snapshot(kept[0])


@pytest.mark.testguest
def test_R34_a_machine_lives_as_long_as_its_server(
    shared: Daemon, motte: Motte, backend: Backend
) -> None:
    """Also where nobody calls."""

    async def use(machines: Machines) -> None:
        first = (await machines.get(None)).info.expires_at
        assert first is not None

        def prolonged() -> bool:
            (vm,) = motte.vms()
            return vm.info.expires_at is not None and vm.info.expires_at > first

        await asyncio.to_thread(wait_until, prolonged, 20)

    in_machines(shared, backend, use, ttl_s=4)


@pytest.mark.testguest
def test_R33_a_server_that_is_gone_is_told_apart_from_a_tool_that_failed() -> None:
    async def use() -> None:
        with pytest.raises(McpFailed):
            async with McpClient.stdio(sys.executable, "-c", "raise SystemExit(1)"):
                pass

    asyncio.run(use())


@pytest.mark.testguest
def test_R33_whatever_a_hostile_server_sends_is_one_kind_of_failure() -> None:
    """So that no task ends with an exception, or listens for ever."""
    schema = {"type": "object", "required": ["n"]}
    pages: list[object] = []
    names = ["odd"]

    async def list_tools(_: Any, params: PaginatedRequestParams | None) -> ListToolsResult:
        pages.append(params)
        tool = McpTool(name=names[0], input_schema={"type": "object"}, output_schema=schema)
        cursor = None if len(pages) == 1 else str(len(pages))
        return ListToolsResult(tools=[tool], next_cursor=cursor)

    async def call_tool(*_: Any) -> CallToolResult:
        return CallToolResult(content=[], structured_content={})

    async def use() -> None:
        server = Server("odd", on_list_tools=list_tools, on_call_tool=call_tool)
        async with McpClient.of(server) as client:
            assert [tool.name for tool in await client.list_tools()] == ["odd"]
            with pytest.raises(McpFailed, match="structured content"):
                await client.call_tool("odd", {})
            with pytest.raises(McpFailed, match="pages of tools"):
                async with asyncio.timeout(20):
                    await client.list_tools()
            for names[0] in ("run\x1b[2Jallowed", "", "read file", "x" * 129, "r\u200bun"):
                with pytest.raises(McpFailed, match="is no name of a tool"):
                    await client.list_tools()

    asyncio.run(use())
