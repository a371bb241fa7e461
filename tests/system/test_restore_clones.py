"""Clones of a snapshot on real Firecracker, driven directly, with the test guest: what the host
sees of a machine that comes from a snapshot, and of one that was snapshotted and goes on."""

import contextlib
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.agent import VsockSession
from harness.clones import Firecracker, Identity, new_instance

pytestmark = pytest.mark.testguest

CLOCK_S = 0.05
BETRAYALS = ("refuse", "silent", "skew", "mute", "stay")


@contextlib.contextmanager
def machine(folder: Path) -> Iterator[Firecracker]:
    vmm = Firecracker(folder)
    try:
        yield vmm
    finally:
        vmm.end()


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Of a machine that has run nothing; and its instance."""
    folder = tmp_path_factory.mktemp("template")
    instance = new_instance()
    with machine(folder / "vm") as template:
        template.boot(instance)
        session, hello = template.hello_from()
        assert (hello["instance"], hello["generation"]) == (instance, 0)
        template.snapshot(folder / "snapshot")
        session.sock.close()
    return folder / "snapshot", instance


@contextlib.contextmanager
def clone(snapshot: Path, folder: Path) -> Iterator[Firecracker]:
    with machine(folder) as vmm:
        vmm.load(snapshot)
        yield vmm


def become(
    vmm: Firecracker, identity: Identity, age_ms: int = 0
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Restores it: the answer, and the hello that follows."""
    with vmm.session() as session:
        answer = session.ask(**identity.request(session, age_ms))
        session.closed()
    control, hello = vmm.hello_from()
    control.sock.close()
    return answer, hello


def seen_by(session: VsockSession) -> tuple[str, str]:
    return session.run("identity"), session.run("random")


def clock_error_s(session: VsockSession) -> float:
    before = time.time()
    guest = int(session.run("wall")) / 1000
    return max(before - guest, guest - time.time(), 0.0)


def test_R04_R21_two_clones_are_told_apart_by_restore(
    snapshot: tuple[Path, str], tmp_path: Path
) -> None:
    randoms = set()
    for number in range(2):
        identity = Identity(number + 1)
        with clone(snapshot[0], tmp_path / str(number)) as vmm:
            answer, hello = become(vmm, identity, number * 10)
            assert hello["instance"] == identity.instance
            assert hello["generation"] == identity.generation
            assert answer["clock_skew_ms"] > 1_000_000_000_000  # it counted from boot
            with vmm.session() as session:
                who, random = seen_by(session)
                assert clock_error_s(session) < CLOCK_S
            assert who.split() == [
                identity.instance, str(identity.generation), identity.hostname, identity.machine_id
            ]  # fmt: skip
            randoms.add(random)
    assert len(randoms) == 2, randoms


def test_R21_clones_that_are_told_nothing_are_equal_and_call_nobody(
    snapshot: tuple[Path, str], tmp_path: Path
) -> None:
    seen = set()
    for number in range(2):
        with clone(snapshot[0], tmp_path / str(number)) as vmm:
            with vmm.session() as session:
                seen.add(seen_by(session))
            vmm.listener.setblocking(False)
            with pytest.raises(BlockingIOError):
                vmm.listener.accept()
    assert len(seen) == 1, seen
    assert seen.pop()[0] == f"{snapshot[1]} 0 - -\n"


def test_R21_R31_a_restore_that_does_not_grow_or_is_wrong_is_refused(
    snapshot: tuple[Path, str], tmp_path: Path
) -> None:
    identity = Identity(5)
    wrong: list[dict[str, object]] = [
        {"entropy": secrets.token_hex(31)}, {"instance": "short"}, {"generation": 0},
        {"machine_id": "x" * 32}, {"hostname": ""}, {"wall_ms": "now"},
    ]  # fmt: skip
    with clone(snapshot[0], tmp_path / "clone") as vmm:
        with vmm.session() as session:
            for changes in wrong:
                refused = session.call(**identity.request(session, 0, **changes))
                assert refused["error"]["code"] == "bad_request", changes
            assert session.ask(op="hello")["instance"] == snapshot[1]
        become(vmm, identity)
        for generation in (4, 5):
            with vmm.session() as session:
                refused = session.call(**Identity(generation).request(session))
                assert refused["error"]["code"] == "old_generation"
                assert session.ask(op="hello")["instance"] == identity.instance
        _, hello = become(vmm, Identity(6))
        assert hello["generation"] == 6


def test_R21_the_original_goes_on_after_its_snapshot_and_is_told_nothing(tmp_path: Path) -> None:
    with machine(tmp_path / "vm") as vmm:
        instance = new_instance()
        vmm.boot(instance)
        control, _ = vmm.hello_from()
        before = vmm.session()
        assert before.run("echo", "before") == "before\n"
        for number in range(2):
            vmm.snapshot(tmp_path / f"snapshot-{number}")
            vmm.state("Resumed")
            with vmm.session() as session:
                assert session.run("echo", "after") == "after\n"
                assert session.run("identity") == f"{instance} 0 - -\n"
        # What was open is over: the host learns it when it writes.
        for old in (control, before):
            with pytest.raises((ConnectionResetError, BrokenPipeError)):
                old.ask(op="ping")
            old.sock.close()
        vmm.listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            vmm.listener.accept()


def test_R21_a_snapshot_of_a_clone_can_be_restored(
    snapshot: tuple[Path, str], tmp_path: Path
) -> None:
    with clone(snapshot[0], tmp_path / "first") as vmm:
        become(vmm, Identity(1))
        vmm.snapshot(tmp_path / "again", "Full")
    with clone(tmp_path / "again", tmp_path / "second") as vmm:
        answer, hello = become(vmm, Identity(2))
        assert hello["generation"] == 2
        # Firecracker moves the guest's clock on while nothing runs.
        assert abs(answer["clock_skew_ms"]) < 5000


@pytest.mark.parametrize("how", BETRAYALS)
def test_R31_the_test_guest_betrays_a_restore_in_every_way(tmp_path: Path, how: str) -> None:
    """What others rely on who test a host against it."""
    identity = Identity(1)
    instance = new_instance()
    with machine(tmp_path / "vm") as vmm:
        vmm.boot(instance, f"motte.betray={how}")
        vmm.hello_from()[0].sock.close()
        with vmm.session() as session:
            if how == "silent":
                request = identity.request(session)
                session.send({"id": 100, **request})
                session.send({"id": 101, "op": "ping"})
                assert session.message()["id"] == 101
                return
            answer = session.call(**identity.request(session))
        assert answer["ok"] == (how != "refuse")
        who = instance if how in ("refuse", "stay") else identity.instance
        if how in ("skew", "stay"):
            assert vmm.hello_from()[1]["instance"] == who
        with vmm.session() as session:
            assert session.ask(op="hello")["instance"] == who
            if how == "skew":
                assert answer["clock_skew_ms"] == 0
                assert clock_error_s(session) > 1_000_000
