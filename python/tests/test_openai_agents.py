"""OpenAI's Agents SDK with a VM as its sandbox: its own runner, a scripted model, a real VM."""

import asyncio
import io
import uuid
from pathlib import Path
from typing import Any

import pytest
from agents import RunConfig, Runner, function_tool
from agents.sandbox import (
    ExecTimeoutError,
    ExecTransportError,
    Manifest,
    SandboxAgent,
    SandboxRunConfig,
    WorkspaceArchiveReadError,
    WorkspaceReadNotFoundError,
)
from agents.sandbox.entries import File
from agents.sandbox.errors import InvalidManifestPathError
from agents.sandbox.session import SandboxSession
from agents.testing import ScriptedModel, assistant_message, function_call

from harness.backend import Backend
from harness.daemon import Daemon
from motte import AsyncMotte, VmGone, openai_agents
from motte.openai_agents import MotteSandboxClient, MotteSandboxOptions

pytestmark = pytest.mark.linux  # the SDK's own tools want a shell in the guest
MARK = f"/tmp/agent-{uuid.uuid4().hex}"
WORK = f"cat in; touch {MARK}; echo $((6*7)) | tee out"


class Client(MotteSandboxClient):
    """Remembers the session that a run has."""

    session: SandboxSession

    async def create(self, **given: Any) -> SandboxSession:
        self.session = await super().create(**given)
        return self.session


async def use(session: SandboxSession) -> None:
    """What the SDK's tools stand on, beyond commands."""
    await session.write(Path("a/b"), io.BytesIO(b"\xff one"))
    assert await session.read_bounded(Path("a/b"), max_bytes=2) == b"\xff "
    with pytest.raises(WorkspaceReadNotFoundError):
        await session.read(Path("none"))
    done = await session.exec("printf '\\377'; echo wrong >&2; kill -9 $$")
    assert (done.stdout, done.stderr, done.exit_code) == (b"\xff", b"wrong\n", 137)
    with pytest.raises(ExecTimeoutError):
        await session.exec("sleep", "60", timeout=0.5, shell=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(openai_agents, "READ_MAX", 4)
        with pytest.raises(WorkspaceArchiveReadError):
            await session.read(Path("a/b"))
        with pytest.raises(WorkspaceArchiveReadError):
            await session.persist_workspace()
    assert (await session.exec("ls /tmp/workspace-*")).stdout == b"", "no archive stays"
    packed = await session.persist_workspace()
    await session.exec("rm -r a; ln -s /etc out-of-it")
    with pytest.raises(InvalidManifestPathError):
        await session.read(Path("out-of-it/passwd"))
    await session.hydrate_workspace(packed)


async def run_agent(client: Client, backend: Backend) -> list[str]:
    """What the model was told of its commands, between which a tool of ours looks closer."""

    @function_tool(failure_error_function=None)
    async def look_closer() -> str:
        await use(client.session)
        state = client.serialize_session_state(client.session.state)
        same = await client.resume(client.deserialize_session_state(state))
        assert (await same.read(Path("a/b"))).read() == b"\xff one", "as it was packed"
        return "seen"

    model = ScriptedModel(
        [
            [function_call("exec_command", {"cmd": WORK}, call_id="1")],
            [function_call("look_closer", {}, call_id="2")],
            [function_call("exec_command", {"cmd": "cat out; exit 3"}, call_id="3")],
            [assistant_message("It is 42.")],
        ]
    )
    agent = SandboxAgent(
        name="worker",
        model=model,
        tools=[look_closer],
        default_manifest=Manifest(entries={"in": File(content=b"from outside\n")}),
    )
    options = MotteSandboxOptions(memory_mib=backend.memory_mib, ttl_s=600)
    run_config = RunConfig(
        sandbox=SandboxRunConfig(client=client, options=options), tracing_disabled=True
    )
    done = await Runner.run(agent, "What is 6 times 7?", run_config=run_config)
    assert done.final_output == "It is 42."
    return [str(item.output) for item in done.new_items if item.type == "tool_call_output_item"]


async def main(daemon: Daemon, backend: Backend) -> None:
    async with AsyncMotte(str(daemon.socket_path)) as motte:
        client = Client(motte)
        first, seen, last = await run_agent(client, backend)
        assert first.endswith("from outside\n42\n")
        assert "Process exited with code 0" in first
        assert seen == "seen"
        assert last.endswith("42\n")
        assert "Process exited with code 3" in last
        assert not Path(MARK).exists(), "nothing ran here"
        assert not await client.session.running(), "the VM ended with the run"
        with pytest.raises(ExecTransportError, match=r"^vm_gone: "):
            await client.session.exec("echo still here")
        with pytest.raises(VmGone):
            await client.resume(client.session.state)
        assert [vm async for vm in motte.vms()] == [], "none was put in its place"


def test_R34_a_run_of_the_agents_sdk_works_in_a_vm_that_ends_with_it(
    daemon: Daemon, backend: Backend
) -> None:
    asyncio.run(main(daemon, backend))
