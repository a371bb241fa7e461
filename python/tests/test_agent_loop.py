"""Tasks whose tools run in real VMs: what comes back, who is asked, and how each ends."""

import asyncio
import dataclasses
import json
import os
import re
import signal
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.backend import Backend
from harness.daemon import Daemon
from harness.waiting import wait_until
from model_server import ModelServer, refuses, says
from motte import AsyncMotte, AsyncVm, Motte, NotFound, Unavailable, Vm, agent
from motte.agent import (
    Approver,
    End,
    Gate,
    Limits,
    Message,
    Model,
    ModelFailed,
    OpenAiModel,
    Outcome,
    Policy,
    Question,
    Refused,
    Reply,
    Returned,
    Rule,
    ScriptedModel,
    Status,
    ToolCall,
    Verdict,
    VmTools,
    WantedCall,
    execute_tool,
    nobody,
    run_task,
)
from motte.agent.loop import clip
from motte.agent.model import Line
from motte.mcp import McpClient, server_of

FREE = Policy([Rule.of(tool, "allow") for tool in ("run", "read_file", "write_file")])
DONE = Reply("all done")
SLEEP = ["/bin/sleep", "600"]


def wants(tool: str, **arguments: Any) -> WantedCall:
    return WantedCall(f"id-{tool}", tool, json.dumps(arguments))


def calls(*wanted: WantedCall) -> Reply:
    return Reply("thinking", wanted)


def echo(word: str) -> Reply:
    return calls(wants("run", command=["/bin/echo", word]))


class Task:
    """One task, in the file's VM or one of its own, which a line of its script may reach."""

    def __init__(self, daemon: Daemon, backend: Backend, vm_id: str) -> None:
        self.daemon, self._backend, self._vm_id = daemon, backend, vm_id
        self.vm: AsyncVm
        self.told: list[Returned] = []

    def own(self, motte: AsyncMotte, name: str | None) -> AbstractAsyncContextManager[AsyncVm]:
        named: dict[str, Any] = {"id": name} if name else {}
        return motte.vm(memory_mib=self._backend.memory_mib, **named)

    def run(
        self,
        model: Sequence[Line] | Model,
        policy: Policy = FREE,
        approver: Approver = nobody,
        *,
        ask_s: float = 30,
        own: bool = False,
        name: str | None = None,
        over_mcp: bool = False,
        **limits: Any,
    ) -> Outcome:
        """`told`: what the model last knew of its calls."""
        said = ScriptedModel(model) if isinstance(model, Sequence) else model

        async def main() -> Outcome:
            async with AsyncMotte(str(self.daemon.socket_path)) as motte, AsyncExitStack() as stack:
                if own:
                    self.vm = await stack.enter_async_context(self.own(motte, name))
                else:
                    self.vm = await motte.get(self._vm_id)
                tools: agent.McpClient = VmTools(self.vm)
                if over_mcp:
                    tools = await stack.enter_async_context(McpClient.of(server_of(tools)))
                return await run_task(
                    "do it",
                    model=said, vm=self.vm, mcp_client=tools,
                    gate=Gate(policy, approver, ask_s=ask_s), limits=Limits(**limits),
                )  # fmt: skip

        outcome = asyncio.run(main())
        if isinstance(said, ScriptedModel):
            self.told = [one for one in said.heard if isinstance(one, Returned)]
        return outcome

    def texts(self) -> list[str]:
        return [one.text for one in self.told]

    def watched(self) -> bool:
        with Motte(str(self.daemon.socket_path)) as motte:
            return any(one.info.state == "running" for one in motte.get(self.vm.id).execs())

    def idle(self) -> bool:
        """No command runs, of whatever kind: those that do refuse a snapshot."""
        with Motte(str(self.daemon.socket_path), retry_s=0) as motte:
            try:
                motte.delete_snapshot(motte.get(self.vm.id).snapshot())
            except Unavailable:
                return False
            return True

    def kill(self) -> None:
        os.kill(self.daemon.vmm_of(self.vm.info.instance), signal.SIGKILL)


@pytest.fixture
def task(shared: Daemon, backend: Backend, vm: Vm) -> Task:
    return Task(shared, backend, vm.id)


def after(act: Callable[[], object], says: Reply) -> Line:
    """The model says it when this has happened."""

    def line(_: Sequence[Message]) -> Reply:
        act()
        return says

    return line


def ends(outcome: Outcome) -> list[str]:
    return [str(called.end) for called in outcome.calls]


# -- tasks that work -------------------------------------------------------------------------------


@pytest.mark.parametrize("over_mcp", [False, True], ids=["direct", "mcp"])
def test_R32_a_task_of_several_calls_runs_in_its_vm(task: Task, over_mcp: bool) -> None:
    outcome = task.run(
        [
            calls(
                wants("write_file", path="/tmp/deep/in", text="3\n1\n2\n"),
                wants("run", command=["/bin/true"]),
            ),
            calls(wants("run", command=["/bin/cat"], stdin="fed\n")),
            calls(wants("read_file", path="/tmp/deep/in")),
            DONE,
        ],
        over_mcp=over_mcp,
    )
    assert (outcome.status, outcome.answer, outcome.turns) == (Status.DONE, "all done", 4)
    assert task.texts() == ["6 bytes written", "[exit code 0]", "fed\n", "3\n1\n2\n"]
    assert [(called.tool, called.end) for called in outcome.calls] == [
        ("write_file", End.RAN), ("run", End.RAN), ("run", End.RAN), ("read_file", End.RAN),
    ]  # fmt: skip
    assert outcome.calls[3].digest == ToolCall.of("", "read_file", {"path": "/tmp/deep/in"}).digest


@pytest.mark.linux
def test_R32_a_model_behind_http_works_in_linux(task: Task) -> None:
    """With what such models do: a busy server, arguments that are no JSON, a command that fails."""
    answers = [
        refuses(503, "loading"),
        says(None, ("c1", "run", '{"command": "echo $((6*7)) >/root/n; cat /root/n"')),
        says(None, ("c2", "run", '{"command": "echo $((6*7)) >/root/n; cat /root/n"}')),
        says("hm", ("c3", "run", '{"command": "echo no >&2; exit 3"}'), ("c4", "nmap", "{}")),
        says("It is 42."),
    ]
    with ModelServer(answers) as server:
        outcome = task.run(OpenAiModel(server.url, "small", first_pause_s=0.01))
    assert (outcome.status, outcome.answer) == (Status.DONE, "It is 42.")
    assert ends(outcome) == ["refused", "ran", "failed", "refused"]
    told = {
        m["tool_call_id"]: m["content"] for m in server.asked[-1]["messages"] if "tool_call_id" in m
    }
    assert told["c1"].startswith("error: the arguments are no JSON object that can be used: ")
    assert told["c2"] == "42\n"
    assert told["c3"] == "error: [stderr]\nno\n\n[exit code 3]"
    assert told["c4"] == "error: there is no tool 'nmap', only run, read_file, write_file"
    assert [tool["function"]["name"] for tool in server.asked[0]["tools"]] == [
        "run", "read_file", "write_file",
    ]  # fmt: skip


# -- approvals -------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", ["granted", "denied", "expired"])
def test_R33_what_the_policy_does_not_know_runs_only_with_an_approval(
    task: Task, answer: str
) -> None:
    asked: list[Question] = []
    write = {"path": f"/tmp/{answer}", "text": "x"}
    read = calls(wants("read_file", path=f"/tmp/{answer}"))

    async def approver(question: Question) -> Verdict:
        asked.append(question)
        if answer == "expired":
            await asyncio.Event().wait()
        return question.grant() if answer == "granted" else question.deny("not that file")

    policy = Policy([Rule.of("read_file", "allow")])
    script = [calls(wants("write_file", **write)), read, DONE]
    outcome = task.run(script, policy, approver, ask_s=0.1 if answer == "expired" else 30)
    assert outcome.status is Status.DONE
    assert [question.digest for question in asked] == [ToolCall.of("", "write_file", write).digest]
    first, second = task.texts()
    if answer == "granted":
        assert (first, second) == ("1 bytes written", "x")
        return
    assert ends(outcome) == ["refused", "failed"]
    assert first == {
        "denied": "denied: not that file",
        "expired": "nobody approved this call in time, so it is denied",
    }[answer]  # fmt: skip
    assert second.startswith("file_not_found: "), "nothing was written"


def test_R33_a_call_that_changed_since_it_was_approved_leaves_the_vm_as_it_was(
    shared: Daemon, vm: Vm
) -> None:
    """Whoever calls execute_tool(): the gate is there, not in the loop."""

    async def yes(question: Question) -> Verdict:
        return question.grant()

    def write(text: str) -> ToolCall:
        return ToolCall.of("1", "write_file", {"path": "/tmp/changed", "text": text})

    async def main() -> None:
        async with AsyncMotte(str(shared.socket_path)) as motte:
            far = await motte.get(vm.id)
            gate, tools = Gate(Policy(), yes), VmTools(far)
            await gate.ask(write("good"))
            forged = dataclasses.replace(write("good"), text=write("evil").text)
            for changed in (write("evil"), write("good "), forged):
                with pytest.raises(Refused):
                    await execute_tool(changed, tools, gate)
            with pytest.raises(NotFound):
                await far.read_file("/tmp/changed")
            assert (await execute_tool(write("good"), tools, gate)).text == "4 bytes written"

    asyncio.run(main())


@pytest.mark.testguest
def test_R33_denials_without_end_end_the_task(task: Task) -> None:
    outcome = task.run([echo("1"), echo("2"), echo("3")], Policy(), denials=2)
    assert (outcome.status, ends(outcome)) == (Status.DENIED, ["refused"] * 2)
    assert outcome.message == "2 denied; last run: denied: nobody is there to be asked"
    outcome = task.run([echo("1")], Policy([Rule.of("run", "deny")]), denials=1)
    assert outcome.message == "1 denied; last run: the policy denies this call"


# -- VMs that are lost -----------------------------------------------------------------------------


@pytest.mark.testguest
def test_R34_a_vm_that_is_killed_ends_the_task_with_its_certificate(task: Task) -> None:
    outcome = task.run([echo("1"), after(task.kill, echo("2")), DONE], own=True)
    assert outcome.status is Status.VM_LOST
    assert outcome.certificate is not None
    assert outcome.certificate.reason == "vmm_crash"
    assert outcome.certificate.instance == task.vm.info.instance
    assert outcome.message.startswith("the VM has ended (vmm_crash): ")
    assert outcome.turns == 2


def test_R34_a_vm_that_is_killed_while_a_call_runs_ends_the_task(task: Task) -> None:
    def kill() -> None:
        wait_until(task.watched)
        task.kill()

    later = threading.Thread(target=kill)
    outcome = task.run([after(later.start, calls(wants("run", command=SLEEP))), DONE], own=True)
    later.join()
    assert outcome.status is Status.VM_LOST
    assert outcome.certificate is not None
    assert outcome.certificate.reason == "vmm_crash"
    assert ends(outcome) == ["failed"]


@pytest.mark.testguest
def test_R34_a_vm_that_is_killed_is_seen_behind_a_server_too(task: Task) -> None:
    """Which tells no more than that a call failed."""
    script = [echo("1"), after(task.kill, echo("2")), DONE]
    outcome = task.run(script, own=True, over_mcp=True)
    assert (outcome.status, ends(outcome)[0], outcome.turns) == (Status.VM_LOST, "ran", 2)
    assert outcome.certificate is not None


@pytest.mark.testguest
def test_R34_another_vm_of_the_same_name_is_not_taken_for_it(task: Task) -> None:
    def replace() -> None:
        with Motte(str(task.daemon.socket_path)) as motte:
            motte.get("worker").delete()
            motte.vm(id="worker", memory_mib=128)

    write = calls(wants("write_file", path="/tmp/R34", text="x"))
    outcome = task.run([after(replace, write), DONE], own=True, name="worker")
    assert (outcome.status, ends(outcome)) == (Status.VM_LOST, [])
    assert outcome.message == "worker is another VM now: the one that had this id has ended"


# -- limits ----------------------------------------------------------------------------------------


@pytest.mark.testguest
def test_R31_turns_and_calls_are_bounded(task: Task) -> None:
    outcome = task.run([echo(str(n)) for n in range(9)], turns=3)
    assert (outcome.status, outcome.turns, ends(outcome)) == (Status.OUT_OF_TURNS, 3, ["ran"] * 3)
    many = calls(*[wants("run", command=["/bin/echo", str(n)]) for n in range(4)])
    outcome = task.run([many, DONE], calls_a_turn=2)
    assert ends(outcome) == ["ran", "ran", "refused", "refused"]
    assert task.texts() == ["0\n", "1\n", *["not run: 2 calls at once are the most"] * 2]


@pytest.mark.testguest
def test_R31_time_is_bounded(task: Task) -> None:
    outcome = task.run([calls(wants("run", command=SLEEP, timeout_s=600)), DONE], time_s=2)
    assert (outcome.status, ends(outcome)) == (Status.OUT_OF_TIME, ["failed"])
    assert outcome.message == "2 s were not enough"
    wait_until(task.idle)
    outcome = task.run([calls(wants("run", command=SLEEP)), DONE], call_s=1)
    assert (outcome.status, task.texts()) == (Status.DONE, ["no answer within 1 s"])
    wait_until(task.idle)
    outcome = task.run([calls(wants("run", command=SLEEP, timeout_s=1)), DONE])
    assert re.fullmatch(r"\n\[ended after \d+\.\d s\]", task.texts()[0])
    wait_until(task.idle)

    class Slow:
        async def complete(self, *_: object) -> Reply:
            await asyncio.Event().wait()
            return DONE

    assert task.run(Slow(), time_s=0.2).status is Status.OUT_OF_TIME


@pytest.mark.testguest
def test_R31_a_call_that_is_given_up_over_mcp_ends_its_command(task: Task) -> None:
    ended = after(lambda: wait_until(task.idle), DONE)
    outcome = task.run([calls(wants("run", command=SLEEP)), ended], call_s=1, over_mcp=True)
    assert (outcome.status, task.texts()) == (Status.DONE, ["no answer within 1 s"])


def test_R31_output_is_given_back_up_to_a_limit(task: Task, backend: Backend) -> None:
    outcome = task.run(
        [calls(wants("run", command=backend.flood(500_000))), DONE], output_bytes=1000
    )
    assert outcome.status is Status.DONE
    (text,) = task.texts()
    assert 900 < len(text.encode()) <= 1000
    assert re.search(r"\n\[\d+ of \d+ bytes are left out here\]\n", text)


@pytest.mark.testguest
@settings(max_examples=200, deadline=None, database=None)
@given(st.text(st.sampled_from("aä€𝄞\ud800\n"), max_size=600), st.integers(160, 400))
def test_R31_what_is_clipped_is_beginning_and_end(text: str, most: int) -> None:
    kept = clip(text, most)
    plain = text.encode("utf-8", "replace").decode()
    assert len(kept.encode()) <= most
    if len(plain.encode()) <= most:
        assert kept == plain
        return
    head, _, rest = kept.partition("\n[")
    while "bytes are left out here]\n" not in rest.split("\n[")[0]:
        more, _, rest = rest.partition("\n[")
        head += "\n[" + more
    missing, _, tail = rest.partition(f" of {len(plain.encode())} bytes are left out here]\n")
    assert plain.startswith(head)
    assert plain.endswith(tail)
    assert int(missing) == len(plain.encode()) - len((head + tail).encode())


@pytest.mark.testguest
def test_R31_limits_that_let_nothing_through_are_refused() -> None:
    for name in ("turns", "calls_a_turn", "denials", "output_bytes"):
        with pytest.raises(ValueError, match="at least"):
            Limits(**{name: 0})


# -- what goes wrong and goes on -------------------------------------------------------------------


@pytest.mark.testguest
def test_R32_a_model_that_fails_ends_the_task(task: Task) -> None:
    outcome = task.run([echo("1"), ModelFailed("it is gone")])
    assert (outcome.status, outcome.message) == (Status.MODEL_FAILED, "it is gone")
    assert (outcome.answer, outcome.turns, ends(outcome)) == ("thinking", 1, ["ran"])


WRONG = [
    ("run", "{", "the arguments are no JSON object"),
    ("run", "[]", "the arguments are no JSON object that can be used: not an object"),
    ("run", '{"command": "a", "command": "b"}', "the .*: a member is there twice"),
    ("run", "", "`command` must be a string, or an array of strings"),
    ("run", '{"command": ""}', "`command` must be"),
    ("run", '{"command": ["a", 1]}', "`command` must be"),
    ("run", '{"command": "a", "timeout_s": 0}', "`timeout_s` must be an integer, 1 to 3600"),
    ("run", '{"command": "a", "timeout_s": true}', "`timeout_s` must be"),
    ("run", '{"command": "a", "stdin": 1}', "`stdin` must be a string"),
    ("run", '{"command": "a", "cwd": "/"}', "`cwd` is not known"),
    (
        "run",
        '{"command": ["/no/such/program"]}',
        r"(?si).*no.*\[exit code 127\]|guest_refused",
    ),
    ("read_file", '{"path": "relative"}', "invalid_query: path: "),
    ("read_file", '{"path": "/no/such"}', "file_not_found: "),
    ("read_file", '{"path": "/x", "more": 1}', "`more` is not known"),
    ("write_file", '{"path": "/tmp/x"}', "`text` must be a string"),
    ("write_file", '{"path": "/tmp/x", "text": "", "mode": 1}', "`mode` is not known"),
    ("shell", "{}", "there is no tool 'shell', only run, read_file, write_file"),
]


def test_R32_what_is_wrong_with_a_call_goes_back_to_the_model(task: Task) -> None:
    """And the task goes on."""
    wrong = calls(*[WantedCall("1", tool, arguments) for tool, arguments, _ in WRONG])
    outcome = task.run([wrong, DONE], calls_a_turn=len(WRONG))
    assert (outcome.status, len(task.told)) == (Status.DONE, len(WRONG))
    for (tool, arguments, why), told in zip(WRONG, task.told, strict=True):
        assert told.is_error, (tool, arguments)
        assert re.match(why, told.text), (tool, arguments, told.text)
