"""What happens to VMs, through the client."""

import asyncio
from itertools import islice
from pathlib import Path

from cutter import Cutter
from harness.daemon import Daemon
from motte import AsyncMotte, AuditEntry, MissedEvents, Motte, Vm

LIVED = ["created", "guards_checked", "running"]


def kinds(entries: list[AuditEntry | MissedEvents]) -> list[str]:
    return [entry.kind for entry in entries if isinstance(entry, AuditEntry)]


def test_R25_events_are_those_of_the_audit_and_go_on_behind_any(motte: Motte, vm: Vm) -> None:
    told = list(motte.events(after=0, vm=vm.id, follow=False))
    assert told == list(vm.audit())
    assert kinds(told) == LIVED
    (first, *rest) = (entry for entry in told if isinstance(entry, AuditEntry))
    assert list(motte.events(after=first.seq, vm=vm.id, follow=False)) == rest
    some = motte.events(after=0, vm=vm.id, kinds=["created", "running"], follow=False)
    assert kinds(list(some)) == ["created", "running"]
    assert list(motte.events(vm=vm.id, follow=False)) == [], "from now on"


def test_R25_a_place_that_is_no_longer_kept_is_told(motte: Motte, vm: Vm) -> None:
    (newest,) = islice(motte.events(after=0, vm=vm.id, kinds=["running"]), 1)
    assert isinstance(newest, AuditEntry)
    gap, *rest = motte.events(after=newest.seq + 1_000_000, vm=vm.id, follow=False)
    assert isinstance(gap, MissedEvents)
    assert kinds(rest) == LIVED, "of another inventory: all that there is"


def test_R25_events_come_as_they_happen_over_lost_connections(
    shared: Daemon, vm: Vm, tmp_path: Path
) -> None:
    with (
        Cutter(tmp_path / "wire", shared.socket_path, [600, 500, 500]) as wire,
        Motte(str(wire.path)) as far,
    ):
        events = far.events(after=0, vm=vm.id)
        assert kinds(list(islice(events, 3))) == LIVED
        vm.pause()
        vm.resume()
        assert kinds(list(islice(events, 2))) == ["paused", "resumed"]
        assert wire.done == 3


def test_R25_events_come_with_asyncio_too(shared: Daemon, vm: Vm) -> None:
    async def main() -> None:
        async with AsyncMotte(str(shared.socket_path)) as motte:
            told = [entry async for entry in motte.events(after=0, vm=vm.id, follow=False)]
            assert kinds(told)[: len(LIVED)] == LIVED

    asyncio.run(main())
