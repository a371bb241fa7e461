"""Failure table: clock jump. Nothing waits, expires or gives up by the wall clock: it is for
display, and where a file system has written it."""

import re
from pathlib import Path

from checks import tree

# Who reads the wall clock, and what for.
WALL = {
    "vmm/exec_run.c": "shown: when a command ended",
    "vmm/execs.c": "shown: when it began",
    "admin/image.c": "when an image was added",
    "api/stats.c": "when it was read",
    "api/vm_json.c": "when a VM's time will be over, for reading",
    "base/base.h": "the declaration",
    "base/clock.c": "the one place that asks the kernel",
    "base/log.c": "the time of a line",
    "cli/output.c": "how old a VM is, for reading",
    "priv/snapshot_publish.c": "when a snapshot was made, for reading",
    "server/calls.c": "when a call was answered",
    "store/audit.c": "when an entry was made",
    "store/backup.c": "the name of what a restore put aside",
    "store/change.c": "when a state began or a VM ended",
    "store/claim.c": "when a VM of the pool began to end",
    "store/cordon.c": "when it was made, and when a drain will end VMs, for reading",
    "store/live.c": "when a VM's time will be over, for reading",
    "vmm/isolation.c": "when guards were looked at",
    "vmm/snapshot.c": "when a snapshot was made, for reading",
    "vmm/steps.c": "when a VM was asked for and ran",
    "vsock/restore.c": "what time it is, for a guest that comes from a snapshot",
}
REALTIME = {
    "base/clock.c": "clock_wall_ms",
    "guest/restore.c": "set, and how far it was off",
    "image/verified.c": "compared with a file's ctime; a jump costs a digest more",
}
# Functions that wait by the wall clock, or tell it past base/clock.c.
FORBIDDEN = {
    "time", "gettimeofday", "ftime", "timespec_get", "alarm", "setitimer", "sem_timedwait",
    "pthread_mutex_timedlock", "pthread_rwlock_timedrdlock", "pthread_rwlock_timedwrlock",
    "mq_timedreceive", "mq_timedsend", "pthread_timedjoin_np",
}  # fmt: skip


def ours() -> list[Path]:
    return [p for p in tree.sources() if tree.relative(p).split("/")[0] in tree.FOLDERS]


def using(pattern: str) -> set[str]:
    return {tree.relative(p) for p in ours() if re.search(pattern, p.read_text(encoding="utf-8"))}


def test_clock_jump_the_wall_clock_is_read_for_display_only() -> None:
    assert using(r"\bclock_wall_ms\b") == set(WALL)
    assert using(r"\bCLOCK_(REALTIME|TAI)") == set(REALTIME)


def test_clock_jump_no_program_calls_what_waits_by_the_wall_clock() -> None:
    seen = set()
    for name in ("motted", "motte-front", "motte-admin"):
        done = tree.run("nm", "-D", "-u", tree.programs_folder() / "bin" / name)
        assert done.returncode == 0, done.stderr
        called = set(re.findall(r"\bU (\w+)", done.stdout))
        assert called & FORBIDDEN == set(), name
        seen |= called
    assert "clock_gettime" in seen


def test_clock_jump_waits_with_a_deadline_are_by_the_monotonic_clock() -> None:
    """Each condition that is waited for with a deadline was made with that clock; the names of
    conditions are a module's own."""
    found = 0
    for folder in tree.FOLDERS:
        text = "\n".join(
            p.read_text(encoding="utf-8")
            for p in ours()
            if tree.relative(p).startswith(f"{folder}/")
        )
        waited = set(re.findall(r"pthread_cond_timedwait\(\s*&?[\w>.-]*?(\w+),", text))
        for name in waited:
            made = re.findall(rf"pthread_cond_init\(&?[\w>.-]*\b{name}, &?(\w+)\)", text)
            assert made, f"{folder}: {name} is made nowhere"
            assert "NULL" not in made, f"{folder}: {name} waits by the wall clock"
            found += 1
        clocks = re.findall(r"pthread_condattr_setclock\(&\w+, (\w+)\)", text)
        assert set(clocks) <= {"CLOCK_MONOTONIC"}, folder
        assert bool(clocks) or not waited, folder
    assert found >= 8, found
