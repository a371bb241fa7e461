"""R29: nobody reads a VM's console while motted is away, and the VM goes on all the same."""

import fcntl
import os
import signal
import struct
import termios
from collections.abc import Callable

import pytest

from harness.backend import Backend
from harness.client import Client
from harness.daemon import Daemon
from harness.deaths import certificate_of, vmm_of
from harness.waiting import wait_until

PIPE_SIZE = 65536


def unread(pid: int) -> int:
    """Bytes in the pipe that a VMM writes its console to."""
    fd = os.open(f"/proc/{pid}/fd/1", os.O_RDONLY | os.O_NONBLOCK)
    try:
        return int(struct.unpack("i", fcntl.ioctl(fd, termios.FIONREAD, bytes(4)))[0])
    finally:
        os.close(fd)


def chattered(client: Client, vm_id: str) -> int:
    return int(client.exec(vm_id, ["chatter"]).out)


@pytest.mark.testguest
@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGKILL])
def test_R29_a_console_that_nobody_reads_does_not_hold_the_vm_up(
    start: Callable[..., Daemon],
    connect: Callable[..., Client],
    backend: Backend,
    signal_number: int,
) -> None:
    """The guest writes more than the pipe holds while motted is away, and goes on."""
    daemon = start()
    client = connect(daemon)
    vm = client.create(id="loud", memory_mib=backend.memory_mib)
    pid = vmm_of(daemon, vm["instance"])
    client.exec("loud", ["chatter", str(1 << 30)])
    daemon.stop(signal_number)
    wait_until(lambda: unread(pid) >= PIPE_SIZE - 4096, 60, "the pipe is not full")
    client = connect(daemon.start())
    assert vmm_of(daemon, vm["instance"]) == pid
    assert client.exec("loud", ["/bin/echo", "on"]).out == "on\n"
    said = chattered(client, "loud")
    assert said > PIPE_SIZE - 4096
    wait_until(lambda: chattered(client, "loud") > said + PIPE_SIZE, 60, "it has stopped")
    assert unread(pid) < PIPE_SIZE - 4096, "this daemon reads"
    client.delete("loud")
    assert "c" * 79 in certificate_of(client, "loud")["console"]
    daemon.assert_no_leftovers()


@pytest.mark.linux
def test_R29_a_console_of_linux_that_nobody_reads_does_not_hold_the_vm_up(
    start: Callable[..., Daemon], connect: Callable[..., Client], backend: Backend
) -> None:
    daemon = start()
    client = connect(daemon)
    vm = client.create(id="loud", memory_mib=backend.memory_mib)
    pid = vmm_of(daemon, vm["instance"])
    leave = "echo 0 >/sys/fs/cgroup/cgroup.procs; echo >/tmp/left"  # else it ends with its command
    flood = f"{leave}; exec yes {'y' * 79} >/dev/console 2>&1"
    wait = "until [ -e /tmp/left ]; do :; done"
    client.exec("loud", ["/bin/sh", "-c", f"setsid sh -c '{flood}' </dev/null & {wait}"])
    daemon.stop()
    wait_until(lambda: unread(pid) >= PIPE_SIZE - 4096, 120, "the pipe is not full")
    client = connect(daemon.start())
    assert vmm_of(daemon, vm["instance"]) == pid
    assert client.exec("loud", ["/bin/echo", "on"], timeout_ms=120_000).out == "on\n"
    client.delete("loud")
    daemon.assert_no_leftovers()
