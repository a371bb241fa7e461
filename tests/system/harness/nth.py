"""One daemon at which calls fail, and the judge of what it does: it lives and says why, nothing is
left, what ran runs on, other programs' rules stand, and the same thing works at once afterwards."""

import contextlib
import functools
import re
import subprocess
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import httpx

from . import host
from .client import Client, Refused
from .contract import Contract
from .traced import TracedDaemon
from .waiting import wait_until

ANSWER_S = 60  # SQLite alone takes 10 s to give up a lock that the kernel cannot make
SILENCE_S = 2
REPAIR_S = 5
SLOW_S = 3
STAYS, PASSES, ORIGIN = "stays", "passes", "origin"
FIREWALLS = ("iptables-legacy", "ip6tables-legacy")
FOREIGN = "zz-foreign"  # after Motte's chains in the table
FOREIGN_RULES = 100
# What a want of ours must not be taken for: the caller's fault, the guest's, a defect.
INNOCENT = {"body_too_large", "bad_request", "invalid_json", "guest_protocol", "internal"}
INNOCENT |= {"firewall_no_table", "root_half_refused", "image_changed", "image_not_found"}

SENTENCE = r" error: |error while loading|cannot "  # of ours, of the dynamic linker's

FAILURES = (AssertionError, Refused, httpx.TransportError, RuntimeError, OSError)

Made = TypeVar("Made", bound=TracedDaemon)


def take_snapshot(client: Client, vm_id: str) -> str:
    return str(client.expect(201, "POST", f"/vms/{vm_id}/snapshots", json={}).json()["id"])


def forget_snapshot(client: Client, snapshot: str) -> None:
    client.expect(204, "DELETE", f"/snapshots/{snapshot}")


class Unanswered(AssertionError):
    """Nothing came in time."""


@dataclass
class Bench(Generic[Made]):
    daemon: Made
    contract: Contract
    memory_mib: int
    keeps: bool = False  # a snapshot, and a VM from it, in the place of one that boots
    pid: int = 0  # of the VM that stays
    front: int = 0
    log_at: int = 0  # what comes after it is new
    injected: Counter[str] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)
    blamed: list[str] = field(default_factory=list)  # answers of the last scenario, see INNOCENT
    wrong: list[str] = field(default_factory=list)

    # -- life -----------------------------------------------------------------------------------

    def begin(self) -> None:
        """With a VM that has to outlive all that comes."""
        self._make_foreign()  # before: motted would take it for an attack
        self.daemon.start()
        self.front = self.daemon.front_pid
        client = self.client()
        client.create(id=STAYS, memory_mib=self.memory_mib)
        client.close()
        (self.pid,) = self.daemon.vmms()
        self.check_works()

    def begin_again(self) -> None:
        """After a failure of the test: what it shows next shall not be the same again."""
        if self.daemon.process is not None:
            self.daemon.process.kill()
            self.daemon.process.wait()
            self.daemon.process = None
        self.daemon.purge()
        self.begin()

    def client(self, seconds: float = ANSWER_S) -> Client:
        client = Client(self.contract, str(self.daemon.socket_path))
        client.http.timeout = httpx.Timeout(seconds)
        return client

    # -- while something fails ------------------------------------------------------------------

    def ask(self, what: Callable[[Client], object], silenced: bool) -> bool:
        """Whether it was done; if not, a problem document said why. A connection for which there
        was nothing is closed."""
        client = self.client(SILENCE_S if silenced else ANSWER_S)
        try:
            what(client)
        except Refused as refused:
            code = refused.problem["code"]
            self.answers[code] += 1
            if code in INNOCENT:
                self.blamed.append(str(refused))
            return False
        except httpx.TimeoutException as error:
            if not silenced:
                raise Unanswered(f"no answer: {error!r}") from error
            self.answers["not accepted"] += 1
            return False
        except httpx.TransportError:
            self.answers["connection closed"] += 1
            return False
        finally:
            client.close()
        return True

    def prepare(self) -> None:
        """What the scenario needs, while nothing fails."""
        if self.keeps:
            client = self.client()
            client.create(id=ORIGIN, memory_mib=self.memory_mib)
            client.close()

    def scenario(self, silenced: bool) -> None:
        self.blamed.clear()
        self.log_at = len(self.daemon.log)
        kept: list[str] = []
        spec: dict[str, object] = {"id": PASSES, "memory_mib": self.memory_mib}
        if self.keeps:
            if not self.ask(lambda c: kept.append(take_snapshot(c, ORIGIN)), silenced):
                return
            spec = {"id": PASSES, "snapshot": kept[0]}
        if self.ask(lambda c: c.create(**spec), silenced):
            self.ask(lambda c: c.exec(PASSES, ["true"]), silenced)
        self.ask(lambda c: c.delete(PASSES), silenced)
        for snapshot in kept:
            self.ask(functools.partial(forget_snapshot, snapshot=snapshot), silenced)

    def new_log(self) -> str:
        return self.daemon.log[self.log_at :]

    def has_ended(self, seconds: float = 3) -> bool:
        assert self.daemon.process is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.daemon.process.wait(timeout=seconds)
        return self.daemon.process.poll() is not None

    def check_ended(self) -> None:
        """Both halves end in time, with a status and a sentence."""
        assert self.daemon.process is not None
        assert self.has_ended(ANSWER_S), "neither ready nor ended"
        status = self.daemon.process.returncode
        words = self.new_log()
        assert status > 0, f"motted ended with {status}: {words[-300:]}"
        assert re.search(SENTENCE, words), f"no sentence: {words[-300:]}"
        self.daemon.wait_gone()

    # -- afterwards -----------------------------------------------------------------------------

    def check_empty(self) -> None:
        """What could not be undone then is undone now, or soon."""
        assert self.daemon.process is not None
        assert self.daemon.process.poll() is None, "motted ended"
        assert self.daemon.front_pid == self.front, "the front is another one"
        client = self.client()
        try:
            for vm in client.list():
                if vm["id"] == ORIGIN:
                    client.resume(ORIGIN)  # it is paused only if its VMM did not let it go on
                    assert client.exec(ORIGIN, ["echo", "on"]).out.strip() == "on"
                if vm["id"] != STAYS:
                    client.delete(vm["id"])
            for one in client.expect(200, "GET", "/snapshots?limit=500").json()["snapshots"]:
                forget_snapshot(client, one["id"])
            self.daemon.wait_no_leftovers(15)
            assert client.exec(STAYS, ["echo", "here"]).out.strip() == "here"
        finally:
            client.close()
        assert list(self.daemon.vmms()) == [self.pid]
        assert self.daemon.rows() == 1
        assert len(self._foreign()) == 2 * (FOREIGN_RULES + 1), "another program's rules are gone"
        assert self.blamed == [], "somebody else is to blame"

    def check_works(self) -> None:
        client = self.client()
        try:
            self._create(client)
            assert client.exec(PASSES, ["echo", "again"]).out.strip() == "again"
            client.delete(PASSES)
        finally:
            client.close()

    def _create(self, client: Client) -> None:
        """What lasted may have stopped a firewall's change in the middle: its repair is tried each
        second, and until then no VM starts."""

        def made() -> bool:
            try:
                client.create(id=PASSES, memory_mib=self.memory_mib)
            except Refused as refused:
                if refused.problem["code"] != "firewall_out_of_sync":
                    raise
                return False
            return True

        wait_until(made, REPAIR_S, "the firewall stays out of sync")

    def _foreign(self) -> list[str]:
        """Another program's rules in the tables that Motte edits. Nothing jumps to them, so that
        only a look can find them missing."""
        show = ("-w", "5", "-t", "security", "-S", FOREIGN)
        return [
            line
            for program in FIREWALLS
            for line in host.run(program, *show, check=False).splitlines()
        ]

    def _make_foreign(self) -> None:
        ports = range(1, FOREIGN_RULES + 1)
        rules = "".join(f"-A {FOREIGN} -p tcp --dport {port}\n" for port in ports)
        text = f"*security\n:{FOREIGN} - [0:0]\n{rules}COMMIT\n"
        for program in FIREWALLS:
            restore = [f"{program}-restore", "-n", "-w", "5"]
            subprocess.run(restore, input=text, text=True, check=True)

    # -- what it came to ------------------------------------------------------------------------

    def note(self, what: object, error: BaseException) -> None:
        words = " ".join(str(error).split())
        self.wrong.append(f"{what}: {type(error).__name__}: {words[:600]}")
        print(f"WRONG {self.wrong[-1]}", flush=True)

    def report(self, name: str, seed: int) -> None:
        """For the log, and the verdict."""
        kinds = ", ".join(f"{kind} {n}" for kind, n in self.injected.most_common())
        answers = ", ".join(f"{code} {n}" for code, n in self.answers.most_common())
        print(f"{name}: {self.injected.total()} injections (seed {seed}): {kinds}")
        print(f"{name}: told as: {answers}")
        assert self.wrong == [], f"MOTTE_SEED={seed} repeats it"
