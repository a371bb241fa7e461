"""R29: nobody reads a VM's console while motted is away, and the VM goes on all the same."""

import fcntl
import json
import os
import re
import signal
import struct
import termios
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from harness import host
from harness.backend import Backend
from harness.client import Client
from harness.daemon import Daemon
from harness.deaths import certificate_of, vmm_of
from harness.events import Event, Events
from harness.waiting import wait_until


@pytest.mark.testguest
def test_R01_the_console_is_read_while_a_vm_lives_and_from_its_certificate_afterwards(
    client: Client, backend: Backend
) -> None:
    vm = client.create(id="said", memory_mib=backend.memory_mib)
    first = client.expect(200, "GET", "/vms/said/console").json()
    assert (first["id"], first["instance"]) == ("said", vm["instance"])
    client.exec("said", ["chatter", "40000"])

    def said() -> str:
        return str(client.expect(200, "GET", "/vms/said/console").json()["console"])

    wait_until(lambda: said().count("c") > 8000, 60, "the guest's console does not come")
    assert len(said()) <= 8192
    client.pause("said")
    assert client.expect(200, "GET", "/vms/said/console").status_code == 200
    client.delete("said")
    gone = client.problem(404, "vm_gone", "GET", "/vms/said/console")
    assert "c" * 79 in gone["context"]["console"]
    client.problem(404, "vm_not_found", "GET", "/vms/nobody/console")


def chattered(client: Client, vm: str) -> int:
    """Bytes that its guest has written to its console for chatter's sake."""
    return int(client.exec(vm, ["chatter"]).out)


def follow(daemon: Daemon, vm: str, after: str | None = None) -> Events:
    return Events(daemon.socket_path, f"/vms/{vm}/console?follow=true", after)


def first_bytes(events: Iterator[Event], count: int) -> tuple[bytes, str]:
    """What comes until there are so many, and the id of the last piece."""
    said, place = b"", ""
    while len(said) < count:
        event = next(events)
        assert event.name == "console"
        said, place = said + event.data, event.id
    return said, place


@pytest.mark.testguest
def test_R29_who_follows_a_console_gets_every_byte_and_the_end(
    client: Client, daemon: Daemon, backend: Backend
) -> None:
    vm = client.create(id="followed", memory_mib=backend.memory_mib)
    with follow(daemon, "followed") as whole, follow(daemon, "followed") as first:
        client.exec("followed", ["chatter", "40000"])
        begun = time.monotonic()
        cut, place = first_bytes(iter(first), 10_000)
        assert time.monotonic() - begun < 12, "woken by what is said, not by 15 s of silence"
        with follow(daemon, "followed", place) as rest:
            resumed = iter(rest)
            more, _ = first_bytes(resumed, 20_000)
            wait_until(lambda: chattered(client, "followed") == 40_000, 60, "it chatters on")
            client.delete("followed")
            more += b"".join(event.data for event in resumed if event.name == "console")
        *pieces, end = whole
    assert cut + more == b"".join(event.data for event in pieces)
    guests = re.sub(
        rb"\d{4}-\d\d-\d\dT[^\n]*\n", b"", cut + more
    )  # the VMM's may cut a line in two
    assert guests.count(b"c" * 79) == 500
    assert (end.name, end.id) == ("end", "end")
    gone = client.problem(404, "vm_gone", "GET", "/vms/followed/console", params={"follow": "true"})
    told = json.loads(end.raw)
    assert (told.pop("id"), told["instance"]) == ("followed", vm["instance"])
    assert told.items() <= gone["context"].items()
    assert told["reason"] == "deleted"


@pytest.mark.testguest
def test_R29_a_place_on_another_console_is_no_place_on_this_one(
    client: Client, daemon: Daemon, backend: Backend
) -> None:
    client.create(id="again", memory_mib=backend.memory_mib)
    with follow(daemon, "again") as events:
        client.exec("again", ["chatter", "400"])
        _, place = first_bytes(iter(events), 400)
    beyond = place.split(".")[0] + ".1000000"
    for wrong in (beyond, "1000", "x" * 32, place + "x", "end."):
        with follow(daemon, "again", wrong) as refused:
            assert (refused.status, wrong) == (400, wrong)
    client.delete("again")
    client.create(id="again", memory_mib=backend.memory_mib)
    with follow(daemon, "again", "end") as over:
        assert over.status == 204
    with follow(daemon, "again", place) as events:
        client.exec("again", ["chatter", "400"])
        gap, *_ = pieces = [event for event, _ in zip(events, range(2), strict=False)]
    assert (gap.name, json.loads(gap.raw)) == ("gap", {"dropped_bytes": None})
    assert gap.id.split(".")[0] != place.split(".")[0]
    assert pieces[1].name == "console"
    client.problem(400, "invalid_query", "GET", "/vms/again/console", params={"follow": "yes"})


@pytest.mark.testguest
def test_R29_who_comes_late_is_told_how_much_of_a_console_he_missed(
    client: Client, daemon: Daemon, backend: Backend
) -> None:
    client.create(id="late", memory_mib=backend.memory_mib)
    client.exec("late", ["chatter", "20000"])
    wait_until(lambda: chattered(client, "late") == 20_000, 60, "it chatters on")
    with follow(daemon, "late") as events:
        client.delete("late")
        gap, *pieces, end = events
    missed = json.loads(gap.raw)["dropped_bytes"]
    got = sum(len(event.data) for event in pieces)
    assert (gap.name, got, end.name) == ("gap", 8192, "end")
    run, place = gap.id.split(".")
    assert (int(place), pieces[-1].id) == (missed, f"{run}.{missed + got}")


def fill(pid: int) -> None:
    """The pipe that a VMM writes its console to, until it takes no more."""
    with open(f"/proc/{pid}/fd/1", "wb", buffering=0, opener=without_waiting) as pipe:
        while pipe.write(b"f" * 4096):
            pass
        while pipe.write(b"f"):
            pass


def without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags & ~os.O_TRUNC | os.O_NONBLOCK)


def unread(pid: int) -> int:
    """Bytes in that pipe."""
    fd = os.open(f"/proc/{pid}/fd/1", os.O_RDONLY | os.O_NONBLOCK)
    try:
        return int(struct.unpack("i", fcntl.ioctl(fd, termios.FIONREAD, bytes(4)))[0])
    finally:
        os.close(fd)


@dataclass
class Loud:
    """A VM whose guest writes to its console without end."""

    daemon: Daemon
    connect: Callable[..., Client]
    instance: str
    pid: int

    def left_alone(self, signal_number: int) -> Client:
        """motted goes; the guest has written to a full pipe when another one comes."""
        self.daemon.stop(signal_number)
        fill(self.pid)
        full, before = unread(self.pid), host.processor_s(self.pid)
        wait_until(lambda: host.processor_s(self.pid) > before + 0.3, 60, "the VMM waits")
        assert unread(self.pid) == full, "it is the same pipe, and nobody reads it"
        client = self.connect(self.daemon.start())
        assert vmm_of(self.daemon, self.instance) == self.pid
        assert client.exec("loud", ["/bin/echo", "on"], timeout_ms=120_000).out == "on\n"
        wait_until(lambda: unread(self.pid) < full, 30, "nobody reads")
        return client


def loud(daemon: Daemon, connect: Callable[..., Client], backend: Backend) -> Loud:
    vm = connect(daemon).create(id="loud", memory_mib=backend.memory_mib)
    return Loud(daemon, connect, vm["instance"], vmm_of(daemon, vm["instance"]))


@pytest.mark.testguest
@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGKILL])
def test_R29_a_console_that_nobody_reads_does_not_hold_the_vm_up(
    start: Callable[..., Daemon],
    connect: Callable[..., Client],
    backend: Backend,
    signal_number: int,
) -> None:
    vm = loud(start(), connect, backend)
    connect(vm.daemon).exec("loud", ["chatter", str(1 << 30)])
    client = vm.left_alone(signal_number)
    said = chattered(client, "loud")
    wait_until(lambda: chattered(client, "loud") > said + 2000, 60, "it has stopped")
    client.delete("loud")
    assert "c" * 79 in certificate_of(client, "loud")["console"], "this daemon reads"
    vm.daemon.assert_no_leftovers()


@pytest.mark.linux
def test_R29_a_console_of_linux_that_nobody_reads_does_not_hold_the_vm_up(
    start: Callable[..., Daemon], connect: Callable[..., Client], backend: Backend
) -> None:
    vm = loud(start(), connect, backend)
    leave = "echo 0 >/sys/fs/cgroup/cgroup.procs; echo >/tmp/left"  # else it ends with its command
    flood = f"{leave}; exec yes {'y' * 79} >/dev/console 2>&1"
    wait = "until [ -e /tmp/left ]; do :; done"
    script = f"setsid sh -c '{flood}' </dev/null & {wait}"
    connect(vm.daemon).exec("loud", ["/bin/sh", "-c", script])
    client = vm.left_alone(signal.SIGTERM)
    client.delete("loud")
    assert "y" * 79 in certificate_of(client, "loud")["console"]
    vm.daemon.assert_no_leftovers()
