"""Many whole lives of VMs, 16 at once, and a kill -9 in the middle of them every now and then: what
the service holds, and what it leaves on the host, is in the end what it was in the beginning.

CI runs 500; tests/soak.sh runs 10,000. MOTTE_CYCLES and MOTTE_LIFE (cycles from kill to kill)."""

import os
import signal
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from harness import host
from harness.backend import Backend
from harness.contract import Contract
from harness.daemon import Daemon
from harness.model import Caller
from harness.watch import Half, settled

pytestmark = [pytest.mark.testguest, pytest.mark.timeout(4 * 3600)]

CYCLES = int(os.environ.get("MOTTE_CYCLES", "500"))
LIFE = int(os.environ.get("MOTTE_LIFE", "100"))
AT_ONCE = 16
WARM_UP = 8 * AT_ONCE  # threads, caches and arenas have grown afterwards
GROWTH_MIB = (
    4.0  # of either half, from the warm-up on; leaks of a byte are AddressSanitizer's business
)


def held(half: Half) -> Counter[str]:
    """The store's connections open their files when they are first used: they are left out."""
    return Counter(fd for fd in half.fds if "/front/motte.db" not in fd)


class Soak:
    def __init__(self, daemon: Daemon, contract: Contract, memory_mib: int) -> None:
        self.daemon = daemon
        self.contract = contract
        self.memory_mib = memory_mib
        self.done = 0
        self.leaks = 0
        self.lock = threading.Lock()

    def caller(self) -> Caller:
        return Caller(self.contract, self.daemon, self.memory_mib)

    def one_cycle(self, caller: Caller, vm_id: str) -> bool:
        """False if the service went away under it."""
        for what, status in (("create", 201), ("exec", 200), ("delete", 204)):
            answer = caller.do(what, vm_id)
            if answer.status in (None, 503):
                return False
            assert answer.status == status, f"{what} {vm_id}: {answer} {answer.body}"
        return True

    def cycles(self, count: int, on: Callable[[int], None] = lambda _: None) -> None:
        """`count` of them, whoever does them; `on` hears the number of each that was done."""
        left = iter(range(count))

        def work(worker: int) -> None:
            caller = self.caller()
            while True:
                with self.lock:
                    number = next(left, None)
                if number is None or not self.one_cycle(caller, f"w{worker}-{number}"):
                    break
                with self.lock:
                    self.done += 1
                on(number)
            caller.close()

        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(work, range(AT_ONCE)))

    def halves(self) -> dict[str, int]:
        return {"root half": self.daemon.pid, "front": self.daemon.front_pid}

    def life(self) -> None:
        """From a start to a kill in the middle of other cycles."""
        self.daemon.start()
        self.cycles(WARM_UP)
        before = {name: settled(pid, Half(0, []), 1) for name, pid in self.halves().items()}
        target = self.done + LIFE
        self.cycles(LIFE)
        assert self.done == target, "the service went away by itself"
        for name, pid in self.halves().items():
            now = settled(pid, before[name])
            kept = held(now) - held(before[name])
            assert not kept, f"{name} keeps descriptors: {kept}"
            grown = now.rss_mib - before[name].rss_mib
            assert grown < GROWTH_MIB, f"{name} grew by {grown:.1f} MiB in {LIFE} cycles"
        front, pid = self.daemon.open_front(), self.daemon.pid
        self.cycles(
            LIFE, lambda number: os.kill(pid, signal.SIGKILL) if number == LIFE // 2 else None
        )
        self.daemon.wait_ended(front)

    def nothing_left(self) -> None:
        self.daemon.start()
        caller = self.caller()
        for vm in caller.client.list(limit=500):
            assert caller.delete(vm["id"]).status == 204
        caller.close()
        assert self.daemon.vmms() == {}
        assert self.daemon.rows() == 0
        found = self.daemon.left_over()
        self.leaks += sum(map(len, found.values()))
        assert not any(found.values()), found
        self.daemon.stop()


def test_R20_R02_a_soak_leaves_what_it_found(
    start: Callable[..., Daemon],
    contract: Contract,
    backend: Backend,
    record_property: Callable[..., None],
) -> None:
    soak = Soak(start(), contract, backend.memory_mib)
    rules, groups = soak.daemon.rules(), host.cgroups_named(soak.daemon.cgroup)
    soak.daemon.stop()
    kills = 0
    while soak.done < CYCLES:
        soak.life()
        soak.nothing_left()
        kills += 1
    soak.daemon.start()
    assert soak.daemon.rules() == rules
    assert host.cgroups_named(soak.daemon.cgroup) == groups
    record_property("counted: cycles of the soak", soak.done)
    record_property("counted: kills during the soak", kills)
    record_property("counted: leaks after them", soak.leaks)
