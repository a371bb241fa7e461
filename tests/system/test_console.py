"""R29: nobody reads a VM's console while motted is away, and the VM goes on all the same."""

import fcntl
import os
import signal
import struct
import termios
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from harness import host
from harness.backend import Backend
from harness.client import Client
from harness.daemon import Daemon
from harness.deaths import certificate_of, vmm_of
from harness.waiting import wait_until


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


def chattered(client: Client) -> int:
    return int(client.exec("loud", ["chatter"]).out)


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
    said = chattered(client)
    wait_until(lambda: chattered(client) > said + 2000, 60, "it has stopped")
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
