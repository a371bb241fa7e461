"""Random sequences of what callers do and what befalls the service, against a small model.

MOTTE_SEED=N repeats a run, MOTTE_STEPS=N makes it longer. A failure shows the seed and the last
steps."""

import os
import random
import signal
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path

import pytest

from harness import model as models
from harness import vmm
from harness.backend import Backend
from harness.contract import Contract
from harness.daemon import Daemon
from harness.model import BROKEN, Answer, Caller, Model

pytestmark = [pytest.mark.testguest, pytest.mark.timeout(1800)]

STEPS = int(os.environ.get("MOTTE_STEPS", "1000"))
IDS = [f"vm-{number}" for number in range(8)]
CALLERS = 4
CHECK_EVERY = 25
DO = ("create", "exec", "get", "delete", "pause", "resume")
CHANGES = ("create", "delete", "pause", "resume")
FROZEN_S = 0.2  # longer than a command takes

# What callers may be told who meet on one id, or whose service dies; where a VM that another one is
# making or removing is neither there nor gone.
MEETING = {
    "create": {Answer(201), Answer(409, "id_taken"), Answer(409, "cancelled")},
    "delete": {Answer(204), Answer(404, "vm_not_found")},
    "get": {Answer(200), Answer(404, "vm_not_found"), Answer(404, "vm_gone")},
    "exec": {
        Answer(200),
        Answer(404, "vm_not_found"),
        Answer(404, "vm_gone"),
        Answer(409, "vm_not_running"),
        Answer(409, "vm_paused"),
        Answer(502, "guest_closed"),
        Answer(502, "vmm_exited"),
    },
}
MEETING["pause"] = MEETING["resume"] = {
    Answer(200),
    Answer(404, "vm_not_found"),
    Answer(404, "vm_gone"),
    Answer(409, "vm_not_running"),
}
DYING = {
    BROKEN,
    Answer(503, "shutting_down"),
    Answer(503, "root_half_lost"),
    Answer(503, "cancelled"),
}


def told(calls: list[tuple[str, str]], answers: list[Answer]) -> str:
    return ", ".join(
        f"{what} {vm_id}: {answer}" for (what, vm_id), answer in zip(calls, answers, strict=True)
    )


class Sequence:
    """The real thing and the model, step by step."""

    def __init__(
        self, dice: random.Random, daemon: Daemon, contract: Contract, memory_mib: int
    ) -> None:
        self.dice = dice
        self.daemon = daemon
        self.contract = contract
        self.memory_mib = memory_mib
        self.model = Model()
        self.helper, *self.callers = self.call()
        self.pool = ThreadPoolExecutor(CALLERS)
        self.last: deque[str] = deque(maxlen=20)
        self.taken: Counter[str] = Counter()

    def call(self) -> list[Caller]:
        return [Caller(self.contract, self.daemon, self.memory_mib) for _ in range(CALLERS + 1)]

    def meet(self) -> None:
        self.close_callers()
        self.helper, *self.callers = self.call()

    def close_callers(self) -> None:
        for caller in (self.helper, *self.callers):
            caller.close()

    def close(self) -> None:
        self.pool.shutdown()
        self.close_callers()

    def say(self, line: str) -> None:
        self.last.append(line)

    # -- steps ----------------------------------------------------------------------------------

    def one_call(self) -> None:
        what, vm_id = self.dice.choice(DO), self.dice.choice(IDS)
        expected = self.model.expected(what, vm_id)
        answer = self.callers[0].do(what, vm_id)
        self.say(f"{what} {vm_id}: {answer}")
        assert answer == expected, f"{what} {vm_id}: {answer}, not {expected}; {answer.body}"
        self.model.became(what, vm_id, answer)

    def list_all(self) -> None:
        self.say("list")
        client = self.callers[0].client
        assert {vm["id"]: vm for vm in client.list(limit=500)} == self.model.alive
        kept = client.expect(200, "GET", "/snapshots?limit=500").json()["snapshots"]
        assert {one["id"]: one for one in kept} == self.model.snapshots

    def snapshot(self) -> None:
        vm_id = self.dice.choice(IDS)
        expected = self.model.expected("snapshot", vm_id)
        answer = self.callers[0].snapshot(vm_id)
        self.say(f"snapshot of {vm_id}: {answer}")
        assert answer == expected, f"snapshot of {vm_id}: {answer}, not {expected}; {answer.body}"
        self.model.became("snapshot", vm_id, answer)

    def restore(self) -> None:
        if not self.model.snapshots:
            return
        kept, vm_id = self.dice.choice(sorted(self.model.snapshots)), self.dice.choice(IDS)
        expected = self.model.expected("restore", vm_id)
        answer = self.callers[0].restore(vm_id, kept)
        self.say(f"restore of {kept} as {vm_id}: {answer}")
        assert answer == expected, f"{vm_id} of {kept}: {answer}, not {expected}; {answer.body}"
        self.model.became("restore", vm_id, answer)

    def forget(self) -> None:
        if not self.model.snapshots:
            return
        kept = self.dice.choice(sorted(self.model.snapshots))
        expected = self.model.forgotten(kept)
        answer = self.callers[0].forget(kept)
        self.say(f"{kept} is deleted: {answer}")
        assert answer == expected, f"delete of {kept}: {answer}, not {expected}; {answer.body}"
        if answer.status == 204:
            del self.model.snapshots[kept]

    def together(self, calls: list[tuple[str, str]]) -> list[Future[Answer]]:
        return [
            self.pool.submit(caller.do, *call)
            for caller, call in zip(self.callers, calls, strict=True)
        ]

    def meeting(self) -> None:
        """Callers who do different things with one id at the same moment."""
        vm_id = self.dice.choice(IDS)
        calls = [(self.dice.choice(DO), vm_id) for _ in self.callers]
        ran = vm_id in self.model.alive
        futures = self.together(calls)
        wait(futures, timeout=FROZEN_S)
        while not all(future.done() for future in futures):  # a command's VM was paused under it
            self.helper.resume(vm_id)
            wait(futures, timeout=FROZEN_S)
        answers = [future.result() for future in futures]
        self.say(f"meeting at {vm_id}: {told(calls, answers)}")
        for (what, _), answer in zip(calls, answers, strict=True):
            assert answer in MEETING[what], f"{what} {vm_id}: {answer}; {answer.body}"
        made = [a.body["instance"] for a in answers if a.status == 201]
        known = [self.model.alive[vm_id]["instance"]] if ran else []
        self.model.learn(vm_id, self.callers[0].get(vm_id))
        left = [self.model.alive[vm_id]["instance"]] if vm_id in self.model.alive else []
        assert set(left) <= {*made, *known}, "a VM that nobody was told of"
        deletes = sum(answer.status == 204 for answer in answers)
        assert len(made) + len(known) - len(left) <= deletes, "a VM ended that nobody deleted"

    def vmm_dies(self) -> None:
        """Killed from outside, as the kernel would for want of memory."""
        if not self.model.alive:
            return
        vm_id = self.dice.choice(sorted(self.model.alive))
        instance = self.model.alive[vm_id]["instance"]
        for pid in self.daemon.vmms():
            if instance in Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8"):
                os.kill(pid, signal.SIGKILL)
        self.callers[0].client.wait_gone(vm_id)
        self.say(f"the VMM of {vm_id} died")
        self.model.ended(vm_id)

    def restart(self) -> None:
        self.say("restart")
        assert self.daemon.stop() == 0
        self.daemon.start()
        self.meet()
        self.check()

    def half_dies(self) -> None:
        """While callers are busy, each with an id of its own; what they were not told may have
        happened or not."""
        ids = self.dice.sample(IDS, CALLERS)
        calls = [(self.dice.choice(DO), vm_id) for vm_id in ids]
        half = self.dice.choice(("root half", "front"))
        victim = self.daemon.pid if half == "root half" else self.daemon.front_pid
        front = self.daemon.open_front()
        futures = self.together(calls)
        wait(futures, timeout=self.dice.choice((0, 0.002, 0.01, 0.03, 0.1)))  # hit any moment
        os.kill(victim, signal.SIGKILL)
        self.daemon.wait_ended(front)
        answers = [future.result(timeout=60) for future in futures]
        self.say(f"the {half} died in {told(calls, answers)}")
        self.daemon.start()
        self.meet()
        for (what, vm_id), answer in zip(calls, answers, strict=True):
            if answer.status is not None and answer not in DYING:
                self.model.became(what, vm_id, answer)
            elif what in CHANGES:
                self.unsure(what, vm_id)
        self.check()

    def unsure(self, what: str, vm_id: str) -> None:
        before = vm_id in self.model.alive
        self.callers[0].exec(vm_id)  # its VMM is asked how it is before one
        self.model.learn(vm_id, self.callers[0].get(vm_id))
        after = vm_id in self.model.alive
        if what == "create":
            assert after or not before, vm_id
        elif what == "delete":
            assert before or not after, vm_id
        else:
            assert before == after, vm_id

    # -- what always holds ----------------------------------------------------------------------

    def check(self) -> None:
        self.list_all()
        assert len(self.daemon.vmms()) == len(self.model.alive)
        assert self.daemon.rows() == len(self.model.alive)
        self.daemon.assert_no_leftovers()
        for vm_id, vm in self.model.alive.items():
            frozen = vmm.is_paused(self.daemon.backend, self.daemon.vmm_of(vm["instance"]))
            assert frozen == (vm["state"] == models.PAUSED), vm_id
            assert self.callers[0].exec(vm_id) == self.model.expected("exec", vm_id), vm_id

    def step(self) -> None:
        kinds: dict[Callable[[], None], int] = {
            self.one_call: 60,
            self.meeting: 20,
            self.list_all: 5,
            self.snapshot: 3,
            self.restore: 5,
            self.forget: 2,
            self.vmm_dies: 8,
            self.half_dies: 4,
            self.restart: 3,
        }
        (kind,) = self.dice.choices(list(kinds), weights=list(kinds.values()))
        self.taken[kind.__name__] += 1
        kind()


@pytest.fixture
def sequence(
    start: Callable[..., Daemon], contract: Contract, backend: Backend
) -> Iterator[Sequence]:
    seed, dice = models.seeded()
    print(f"MOTTE_SEED={seed} MOTTE_STEPS={STEPS}")
    made = Sequence(dice, start(), contract, backend.memory_mib)
    yield made
    print("\n".join(made.last))
    made.close()


def test_R02_R04_R20_random_sequences_do_as_the_model_says(
    sequence: Sequence, record_property: Callable[..., None]
) -> None:
    record_property("counted: steps against the model", STEPS)
    for number in range(STEPS):
        sequence.step()
        if number % CHECK_EVERY == 0:
            sequence.check()
    sequence.check()
    for vm_id in list(sequence.model.alive):
        assert sequence.callers[0].delete(vm_id).status == 204
        sequence.model.ended(vm_id)
    for kept in list(sequence.model.snapshots):
        assert sequence.callers[0].forget(kept).status == 204
        del sequence.model.snapshots[kept]
    sequence.check()
    assert sequence.daemon.vmms() == {}
    assert sequence.daemon.vm_rules() == []
    assert min(sequence.taken.values()) > 0, sequence.taken
