"""What the agent does for a Linux guest that comes from a snapshot: the VMM is driven directly,
emulated QEMU or, in the nested host, Firecracker. The template draws anew from its own pool last,
so that clones which are left alone are equal."""

import contextlib
import os
import time
from collections.abc import Iterator
from typing import Any

import pytest

from harness.agent import Session
from harness.backend import Backend
from harness.clones import (
    FirecrackerTemplate,
    Identity,
    LinuxMachine,
    LinuxTemplate,
    Qemu,
    QemuTemplate,
)  # fmt: skip

pytestmark = pytest.mark.linux

RESEED = "import fcntl; fcntl.ioctl(open('/dev/urandom', 'wb'), 0x5207)"  # RNDRESEEDCRNG
# A process that has left its command's cgroup, and lives on when the command has ended.
BACKGROUND = (
    "(echo 0 >/sys/fs/cgroup/cgroup.procs; echo >/run/left;"
    " exec setsid sleep 100000 >/dev/null 2>&1 </dev/null) & "
    "until [ -e /run/left ]; do sleep 0.05; done; echo $!"
)
MACHINE_ID = (
    "mkdir -p /var/lib/dbus; cat /proc/sys/kernel/random/uuid | tr -d - |"
    " tee /etc/machine-id /var/lib/dbus/machine-id"
)
# What clones of one snapshot have in common until they are told to differ.
SHARED = {
    "random": "od -An -N16 -tx1 /dev/urandom",
    "uuid": "cat /proc/sys/kernel/random/uuid",
    "boot id": "cat /proc/sys/kernel/random/boot_id",
    "hostname": "cat /proc/sys/kernel/hostname",
    "machine id": "cat /etc/machine-id /var/lib/dbus/machine-id",
}
CLOCK_S = 0.05
LATE_MS = 1000  # how long a restore may have been under way
PAIRS = 5


def facts(session: Session) -> dict[str, str]:
    return {name: session.run("sh", "-c", command) for name, command in SHARED.items()}


class Snapshot:
    def __init__(self, template: LinuxTemplate) -> None:
        self.template = template
        machine = template.boot()
        try:
            with (
                machine.service(template.token) as session,
                machine.service(template.token, 2) as other,
            ):
                other.begin("sleep", "100000")  # cut off by the snapshot
                self.background = int(session.run("sh", "-c", BACKGROUND))
                session.run("sh", "-c", MACHINE_ID)
                facts(session)  # the kernel makes its boot id when it is first read
                session.run("python3", "-c", RESEED)
            template.snapshot(machine)
        finally:
            machine.end()


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory, backend: Backend) -> Iterator[Snapshot]:
    kind = QemuTemplate if backend.emulated else FirecrackerTemplate
    template = kind(tmp_path_factory.mktemp("template"))
    yield Snapshot(template)
    template.close()


@contextlib.contextmanager
def clone(snapshot: Snapshot) -> Iterator[LinuxMachine]:
    machine = snapshot.template.clone()
    try:
        yield machine
    finally:
        machine.end()


def become(
    machine: LinuxMachine, token: bytes, identity: Identity, age_ms: int = 0
) -> dict[str, Any] | None:
    """Restores it, and takes its hello."""
    answer = machine.restore(token, identity, age_ms)
    hello = machine.hello(identity.token)
    assert hello["instance"] == identity.instance
    assert hello["generation"] == identity.generation
    return answer


def clock_error_s(session: Session) -> float:
    """How far the guest's clock is off at least, by what lies between question and answer."""
    before = time.time()
    guest = int(session.run("date", "+%s%N")) / 1e9
    return max(before - guest, guest - time.time(), 0.0)


@pytest.mark.core
def test_R04_R21_two_clones_of_a_snapshot_differ_after_restore_and_go_on_at_once(
    snapshot: Snapshot, backend: Backend
) -> None:
    told, seen = [Identity(1), Identity(1)], []
    for identity, age_ms in zip(told, (0, LATE_MS), strict=True):
        with clone(snapshot) as machine:
            answer = become(machine, snapshot.template.token, identity, age_ms)
            if (
                backend.emulated
            ):  # under KVM the clock has been moved on, and the answer may be lost
                assert answer is not None
                # Behind by the snapshot's age; but a boot sets it by whole seconds, also ahead.
                assert 0 < abs(answer["clock_skew_ms"]) < 300_000, answer
            with machine.service(identity.token, 2) as session:
                assert session.run("echo", "at once") == "at once\n"
                seen.append(facts(session))
                assert clock_error_s(session) < CLOCK_S
                name = session.run("cat", f"/proc/{snapshot.background}/comm")
                assert name == "sleep\n"
    for name in SHARED:
        assert seen[0][name] != seen[1][name], f"{name}: {seen[0][name]!r} in both"
    for identity, facts_of in zip(told, seen, strict=True):
        assert facts_of["hostname"] == f"{identity.hostname}\n"
        assert facts_of["machine id"] == f"{identity.machine_id}\n" * 2


@pytest.mark.emulated
def test_R21_clones_that_are_not_restored_are_equal(snapshot: Snapshot) -> None:
    """Unless the kernel reseeds by itself between: one pair of several will do, since what is equal
    in it is not so by chance."""
    seen: list[dict[str, str]] = []
    for _ in range(PAIRS):
        seen = []
        for _ in range(2):
            with (
                clone(snapshot) as machine,
                machine.service(snapshot.template.token) as session,
            ):
                seen.append(facts(session))
        if seen[0] == seen[1]:
            return
    raise AssertionError(f"{PAIRS} pairs of clones, all different: {seen}")


@pytest.mark.emulated
def test_R21_R31_a_restore_that_is_refused_leaves_the_agent_what_it_was(
    snapshot: Snapshot,
) -> None:
    identity, template = Identity(7), snapshot.template
    with clone(snapshot) as machine:
        with machine.service(template.token) as session:
            bad = session.call(**identity.request(session, entropy="00" * 31))
            assert bad["error"]["code"] == "bad_request", bad
            session.run("mkdir", "-p", "/run/.boot_id/in the way")
            failed = session.call(**identity.request(session))
            assert failed["error"]["code"] == "cannot_restore", failed
            assert "boot id" in failed["error"]["message"]
            hello = session.ask(op="hello")
            assert (hello["instance"], hello["generation"]) == (template.instance, 0)
            session.run("rm", "-r", "/run/.boot_id")
        become(machine, template.token, identity)
        with machine.service(identity.token) as session:
            old = session.call(**Identity(7).request(session))
            assert old["error"]["code"] == "old_generation", old
            hello = session.ask(op="hello")
            assert (hello["instance"], hello["generation"]) == (identity.instance, 7)
        become(machine, identity.token, Identity(8))


@pytest.mark.core
def test_R21_after_a_restore_nothing_is_left_of_who_the_machine_was(snapshot: Snapshot) -> None:
    identity = Identity(1)
    with clone(snapshot) as machine:
        become(machine, snapshot.template.token, identity)
        with machine.service(identity.token) as session:
            # The command that ran when the snapshot was taken has ended, its cgroup too.
            groups = session.run("sh", "-c", "ls -d /sys/fs/cgroup/motte/*/").split()
            assert len(groups) == 1, groups
            # No command can read the token: not where PID 1 shows what it was given, nor by a
            # descriptor that came down from it.
            shown = session.run("sh", "-c", "cat /proc/1/cmdline /proc/1/environ | tr '\\0' ' '")
            assert identity.token.hex() not in shown
            assert session.run("ls", "/proc/self/fd").split() == ["0", "1", "2", "3"]
            assert session.run("cat", "/proc/1/comm") == "init\n"


@pytest.mark.emulated
def test_R21_a_templates_token_opens_nothing_after_a_restore(snapshot: Snapshot) -> None:
    identity, old = Identity(1), snapshot.template.token
    with clone(snapshot) as machine:
        assert isinstance(machine, Qemu)
        become(machine, old, identity)
        # Of two marks only the second is answered.
        with machine.session(1, identity.token, before=old + os.urandom(8)) as session:
            assert session.stale == b""
            assert session.ask(op="hello")["generation"] == 1
