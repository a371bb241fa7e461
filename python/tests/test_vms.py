"""VMs through the client: lives, commands, snapshots, and how each failure reads."""

import asyncio
import dataclasses
from datetime import UTC, datetime

import pytest

from harness.backend import Backend
from harness.daemon import Daemon
from motte import (
    AsyncMotte,
    AsyncVm,
    CommandFailed,
    CommandTimeout,
    Conflict,
    GuestError,
    Idle,
    InvalidRequest,
    Motte,
    NotFound,
    Vm,
    VmGone,
    VmInfo,
    VmReplaced,
    call,
    calls,
)


def test_R27_a_command_tells_what_it_wrote_and_how_it_ended(vm: Vm, backend: Backend) -> None:
    done = vm.run(["/bin/echo", "a", "ä"])
    assert (done.stdout, done.stderr, done.exit_code, done.signal) == ("a ä\n", "", 0, None)
    assert vm.run(backend.to_stderr("oops")).stderr == "oops\n"
    assert vm.run(["/bin/cat"], stdin="in\n").stdout == "in\n"
    assert vm.run(backend.exit_with(7)).exit_code == 7


def test_R27_check_raises_what_did_not_exit_with_0(vm: Vm, backend: Backend) -> None:
    assert vm.run(["/bin/echo"], check=True).exit_code == 0
    with pytest.raises(CommandFailed) as caught:
        vm.run(backend.exit_with(7), check=True)
    assert str(caught.value) == "the command ended with exit code 7"
    assert caught.value.result.exit_code == 7


@pytest.mark.linux
def test_R27_a_string_is_for_the_shell(vm: Vm) -> None:
    done = vm.run('echo "$COLOUR $(pwd)"', env={"COLOUR": "red"}, cwd="/tmp")
    assert done.stdout == "red /tmp\n"
    with pytest.raises(CommandFailed) as caught:
        vm.run("echo first >&2; printf '\\033[1mlast\\n' >&2; exit 3", check=True)
    assert str(caught.value) == (
        "the command ended with exit code 3: \N{REPLACEMENT CHARACTER}[1mlast"
    )
    assert vm.run("kill -9 $$").signal == 9


def test_R31_a_command_out_of_time_has_a_class_and_its_outputs(vm: Vm, backend: Backend) -> None:
    with pytest.raises(CommandTimeout) as caught:
        vm.run(["/bin/sleep", "600"], timeout_ms=500)
    assert isinstance(caught.value, GuestError)
    assert caught.value.outputs.stdout == ""
    assert caught.value.outputs.duration_ms >= 400
    assert str(caught.value).startswith("exec_timeout: ")
    assert "\n" not in str(caught.value)


def test_R02_pause_resume_keepalive_and_refresh(vm: Vm) -> None:
    assert vm.pause().state == vm.info.state == "paused"
    with pytest.raises(Conflict, match=r"^vm_paused: ") as caught:
        vm.run(["/bin/echo"])
    assert caught.value.code == "vm_paused"
    assert vm.resume().state == "running"
    was = vm.info.expires_at
    assert was is not None
    now = vm.keepalive(7200).expires_at
    assert now is not None
    assert 3000 < (now - was).total_seconds() < 4000
    assert vm.refresh() == vm.info


def test_R02_labels_and_life_change_by_a_patch(vm: Vm) -> None:
    assert vm.update(labels={"stage": "one", "kept": "yes"}).labels["stage"] == "one"
    info = vm.update(labels={"stage": None}, ttl_s=600)
    assert dict(info.labels) == {"kept": "yes"}
    assert info.expires_at is not None
    assert (info.expires_at - datetime.now(UTC)).total_seconds() < 700
    vm.keepalive(3600)


def test_R05_what_a_vm_takes_reads_as_types(vm: Vm) -> None:
    taken = vm.stats()
    assert (taken.id, taken.instance) == (vm.id, vm.info.instance)
    assert vm.stats().cpu_us >= taken.cpu_us >= 0


def test_R22_isolation_and_audit_read_as_types(vm: Vm) -> None:
    report = vm.isolation()
    assert report.instance == vm.info.instance
    assert {"seccomp", "uid", "namespace_net"} <= {line.name for line in report.lines}
    kinds = [entry.kind for entry in vm.audit()]
    assert kinds[:3] == ["created", "guards_checked", "running"]


def test_R01_what_the_host_has_reads_as_types(motte: Motte, backend: Backend) -> None:
    host = motte.capabilities()
    assert host.emulated == backend.emulated
    assert host.limits["max_vcpus"] >= 1
    assert host.tenant.vms == len(list(motte.vms()))
    assert motte.images().default == backend.image


def test_R02_a_with_ends_the_vm_and_its_certificate_says_so(
    daemon: Daemon, motte: Motte, backend: Backend
) -> None:
    with motte.vm(
        id="brief",
        memory_mib=backend.memory_mib,
        labels={"run": "42"},
        idle=Idle(after_s=600),
    ) as vm:
        assert vm.info.idle == Idle(600, "delete")
        assert [found.id for found in motte.vms(label="run=42")] == ["brief"]
        assert list(motte.vms(label="run=43")) == []
        assert motte.get("brief").info.instance == vm.info.instance
    with pytest.raises(VmGone, match=r"^vm_gone: ") as caught:
        vm.refresh()
    assert caught.value.certificate is not None
    assert caught.value.certificate.reason == "deleted"
    vm.delete()
    with pytest.raises(NotFound, match=r"^vm_not_found: "):
        motte.get("never")


def test_R02_a_failure_in_a_with_ends_the_vm_and_comes_through(
    daemon: Daemon, motte: Motte, backend: Backend
) -> None:
    with (
        pytest.raises(ZeroDivisionError),
        motte.vm(id="brief", memory_mib=backend.memory_mib),
    ):
        raise ZeroDivisionError
    assert list(motte.vms()) == []


@pytest.mark.testguest
def test_R10_a_handle_never_turns_into_another_vms(
    daemon: Daemon, motte: Motte, backend: Backend
) -> None:
    old = motte.vm(id="same", memory_mib=backend.memory_mib)
    old.delete()
    with motte.vm(id="same", memory_mib=backend.memory_mib):
        with pytest.raises(VmReplaced, match=r"^same is another VM now"):
            old.refresh()
        assert old.info.state == "running", "as it was told of the one it was made for"


def test_R10_what_is_no_id_is_not_sent(motte: Motte) -> None:
    for wrong in ("", "..", "a/b", "a%41", "a" * 65, "ä", "a\n"):
        with pytest.raises(ValueError, match="is no id"):
            motte.get(wrong)


def test_R01_a_wrong_request_reads_in_one_line(motte: Motte) -> None:
    with pytest.raises(InvalidRequest) as caught:
        motte.vm(memory_mib=1)
    told = caught.value
    assert told.code == "out_of_range"
    assert str(told).startswith("out_of_range: ")
    assert "memory_mib" in str(told)
    assert str(told).endswith(f"{told.remediation} (request {told.request_id})")
    with pytest.raises(InvalidRequest, match=r"^unknown_field: "):
        motte.vm(colour="red")  # type: ignore[call-arg]


def one_a_page(cursor: str | None) -> call.Call[call.Page[VmInfo]]:
    first = calls.list_vms(None, None, cursor)
    return dataclasses.replace(first, query={**first.query, "limit": 1})


def test_R21_snapshots_restores_and_forks(daemon: Daemon, motte: Motte, backend: Backend) -> None:
    with motte.vm(id="origin", memory_mib=backend.memory_mib) as origin:
        kept = origin.snapshot({"stage": "ready"})
        try:
            assert motte.snapshot(kept.id) == kept
            assert list(motte.snapshots(label="stage=ready")) == [kept]
            assert list(motte.snapshots(label="stage=raw")) == []
            with motte.vm(id="again", snapshot=kept) as again:
                assert (again.info.source, again.info.snapshot) == ("snapshot", kept.id)
                assert again.run(["/bin/echo", "here"]).stdout == "here\n"
                with pytest.raises(Conflict, match=r"^snapshot_in_use: "):
                    motte.delete_snapshot(kept)
        finally:
            motte.delete_snapshot(kept)
        two = origin.fork(count=2, ttl_s=600)
        assert [vm.run(["/bin/echo", "fork"]).stdout for vm in two] == ["fork\n"] * 2
        ids = {"origin", *(vm.id for vm in two)}
        assert ids <= {info.id for info in motte.walk(one_a_page)}, "over pages of one"
        for vm in two:
            vm.delete()


def test_R01_the_client_for_asyncio_does_the_same(daemon: Daemon, backend: Backend) -> None:
    async def life(motte: AsyncMotte, name: str) -> tuple[str, AsyncVm]:
        async with motte.vm(id=name, memory_mib=backend.memory_mib) as vm:
            done = await vm.run(["/bin/echo", name], check=True)
            assert (await vm.isolation()).instance == vm.info.instance
            assert [entry.kind async for entry in vm.audit()][:1] == ["created"]
            assert vm.id in [found.id async for found in motte.vms()]
            with pytest.raises(CommandFailed):
                await vm.run(backend.exit_with(1), check=True)
            assert (await vm.pause()).state == "paused"
            return done.stdout, vm

    async def main() -> None:
        async with AsyncMotte(str(daemon.socket_path)) as motte:
            lives = await asyncio.gather(life(motte, "one"), life(motte, "two"))
            assert [out for out, _ in lives] == ["one\n", "two\n"]
            for _, vm in lives:
                with pytest.raises(VmGone):
                    await vm.refresh()

    asyncio.run(main())


def test_R02_one_that_is_begun_is_waited_for(
    daemon: Daemon, motte: Motte, backend: Backend
) -> None:
    vm = motte.begin(id="begun", memory_mib=backend.memory_mib)
    with vm:
        assert vm.info.state == "creating"
        assert vm.wait(timeout_s=300).state == "running"
        assert vm.wait("paused", timeout_s=0.5).state == "running", "time was over"
        vm.update(ttl_s=1)
        with pytest.raises(VmGone) as caught:
            vm.wait("exited")
        assert caught.value.certificate is not None
        assert caught.value.certificate.reason == "ttl"
