"""What a service with VMs should be, as small as it can be said, to compare the real one with."""

import os
import random
from dataclasses import dataclass, field
from typing import Any

import httpx

from .client import Client
from .contract import Contract
from .daemon import Daemon

NEVER, RUNNING, PAUSED, GONE = "vm_not_found", "running", "paused", "vm_gone"


@dataclass(frozen=True)
class Answer:
    """Status, and the code of a problem or "" for success; no status if the connection broke."""

    status: int | None
    code: str = ""
    body: dict[str, Any] = field(default_factory=dict, compare=False)

    def __str__(self) -> str:
        return f"{self.status} {self.code}".strip()


BROKEN = Answer(None)


class Caller:
    """Says what was answered instead of raising it."""

    def __init__(self, contract: Contract, daemon: Daemon, memory_mib: int) -> None:
        self.client = Client(contract, str(daemon.socket_path))
        self.memory_mib = memory_mib

    def close(self) -> None:
        self.client.close()

    def _ask(self, method: str, path: str, json: dict[str, Any] | None = None) -> Answer:
        try:
            response = self.client.request(method, path, json=json)
        except httpx.TransportError:
            return BROKEN
        body = response.json() if response.content else {}
        return Answer(response.status_code, body.get("code", ""), body)

    def create(self, vm_id: str) -> Answer:
        return self._ask("POST", "/vms", {"id": vm_id, "memory_mib": self.memory_mib})

    def delete(self, vm_id: str) -> Answer:
        return self._ask("DELETE", f"/vms/{vm_id}")

    def get(self, vm_id: str) -> Answer:
        return self._ask("GET", f"/vms/{vm_id}")

    def pause(self, vm_id: str) -> Answer:
        return self._ask("POST", f"/vms/{vm_id}/pause")

    def resume(self, vm_id: str) -> Answer:
        return self._ask("POST", f"/vms/{vm_id}/resume")

    def exec(self, vm_id: str) -> Answer:
        answer = self._ask("POST", f"/vms/{vm_id}/exec", {"argv": ["echo", vm_id]})
        if answer.status == 200:
            assert answer.body["stdout"] == f"{vm_id}\n", answer.body
        return answer

    def snapshot(self, vm_id: str) -> Answer:
        return self._ask("POST", f"/vms/{vm_id}/snapshots", {})

    def restore(self, vm_id: str, snapshot: str) -> Answer:
        return self._ask("POST", "/vms", {"id": vm_id, "snapshot": snapshot})

    def forget(self, snapshot: str) -> Answer:
        return self._ask("DELETE", f"/snapshots/{snapshot}")

    def do(self, what: str, vm_id: str) -> Answer:
        answer: Answer = getattr(self, what)(vm_id)
        return answer


class Model:
    """Each id was never used, has a VM that runs or is paused, or had one. What a caller is to be
    answered, and what becomes of the id. Snapshots stay until they are deleted."""

    def __init__(self) -> None:
        self.alive: dict[str, dict[str, Any]] = {}
        self.gone: set[str] = set()
        self.snapshots: dict[str, dict[str, Any]] = {}

    def state(self, vm_id: str) -> str:
        if vm_id in self.alive:
            return str(self.alive[vm_id]["state"])
        return GONE if vm_id in self.gone else NEVER

    def expected(self, what: str, vm_id: str) -> Answer:
        state = self.state(vm_id)
        if what in ("create", "restore"):
            return Answer(409, "id_taken") if vm_id in self.alive else Answer(201)
        if what == "delete":
            return Answer(404, NEVER) if state == NEVER else Answer(204)
        if what == "exec" and state == PAUSED:
            return Answer(409, "vm_paused")
        if what == "snapshot" and vm_id in self.alive:
            return Answer(201)
        return Answer(200) if vm_id in self.alive else Answer(404, state)

    def forgotten(self, snapshot: str) -> Answer:
        used = any(vm["snapshot"] == snapshot for vm in self.alive.values())
        return Answer(409, "snapshot_in_use") if used else Answer(204)

    def became(self, what: str, vm_id: str, answer: Answer) -> None:
        if what == "snapshot" and answer.status == 201:
            self.snapshots[answer.body["id"]] = answer.body
        elif what in ("create", "restore") and answer.status == 201:
            self.alive[vm_id] = answer.body
            self.gone.discard(vm_id)
        elif what in ("pause", "resume") and answer.status == 200:
            wanted = PAUSED if what == "pause" else RUNNING
            assert answer.body == {**self.alive[vm_id], "state": wanted}
            self.alive[vm_id] = answer.body
        elif what == "delete" and answer.status == 204:
            self.ended(vm_id)

    def ended(self, vm_id: str) -> None:
        if self.alive.pop(vm_id, None) is not None:
            self.gone.add(vm_id)

    def learn(self, vm_id: str, answer: Answer) -> None:
        """Takes the word of a GET, for what nobody could know."""
        self.alive.pop(vm_id, None)
        self.gone.discard(vm_id)
        if answer.status == 200:
            self.alive[vm_id] = answer.body
        elif answer.code == GONE:
            self.gone.add(vm_id)


def seeded() -> tuple[int, random.Random]:
    """From MOTTE_SEED, or a new seed each time."""
    seed = int(os.environ.get("MOTTE_SEED") or int.from_bytes(os.urandom(4), "big"))
    return seed, random.Random(seed)  # noqa: S311
