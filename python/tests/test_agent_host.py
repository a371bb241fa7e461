"""Nothing that a model says is run on this host, which audited_task.py sees."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from audited_task import MARK
from harness.backend import Backend
from harness.daemon import Daemon
from motte import AsyncMotte
from motte.agent import (
    Gate,
    Outcome,
    Policy,
    Reply,
    Rule,
    ScriptedModel,
    Status,
    VmTools,
    WantedCall,
    run_task,
)

FOLDER = Path(__file__).parent


class Audited:
    def __init__(self, daemon: Daemon, backend: Backend, fate: str, folder: Path) -> None:
        words = [str(daemon.socket_path), str(backend.memory_mib), fate]
        done = subprocess.run(
            [sys.executable, str(FOLDER / "audited_task.py"), *words],
            cwd=folder, env={"PYTHONPATH": str(FOLDER.parent), "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        self.status, self.ends, self.seen = json.loads(done.stdout.splitlines()[-1])


@pytest.mark.testguest
def test_R34_a_task_runs_no_program_and_no_code_on_the_host(
    daemon: Daemon, backend: Backend, tmp_path: Path
) -> None:
    task = Audited(daemon, backend, "works", tmp_path)
    assert (task.status, task.ends) == ("done", ["ran", "ran", "ran", "refused", "refused"])
    assert task.seen == []
    assert list(tmp_path.iterdir()) == []
    assert not Path(f"/tmp/{MARK}").exists()


def test_R34_nothing_runs_on_the_host_when_the_vm_fails(
    daemon: Daemon, backend: Backend, tmp_path: Path
) -> None:
    task = Audited(daemon, backend, "lost", tmp_path)
    assert (task.status, task.ends, task.seen) == ("vm_lost", ["ran", "failed"], [])


@pytest.mark.testguest
def test_R34_a_tool_that_runs_on_the_host_is_seen(
    daemon: Daemon, backend: Backend, tmp_path: Path
) -> None:
    """So the two above can fail."""
    task = Audited(daemon, backend, "leaks", tmp_path)
    assert task.status == "done"
    for word in (f"{MARK}-1", f"{MARK}-2"):
        assert any(s.startswith("subprocess.Popen") and word in s for s in task.seen), task.seen


@pytest.mark.testguest
def test_R34_a_service_that_does_not_answer_ends_the_task(
    start: Callable[..., Daemon], backend: Backend
) -> None:
    daemon = start()
    call = WantedCall("1", "run", '{"command": ["/bin/echo"]}')

    def stops(_: object) -> Reply:
        daemon.stop()
        return Reply("", (call,))

    async def main() -> Outcome:
        async with AsyncMotte(str(daemon.socket_path), retry_s=0) as motte:
            vm = await motte.vm(memory_mib=backend.memory_mib)
            gate, model = Gate(Policy([Rule.of("run", "allow")])), ScriptedModel([stops])
            return await run_task("", model=model, vm=vm, mcp_client=VmTools(vm), gate=gate)

    outcome = asyncio.run(main())
    assert (outcome.status, outcome.calls) == (Status.SERVICE_FAILED, ())
    assert outcome.message.startswith("cannot reach ")
    daemon.start()
