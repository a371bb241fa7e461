"""Two tenants and every route of the contract: what is another's is as if it were not there, a
reader changes nothing, and nobody without a token is told anything."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from harness.backend import Backend
from harness.client import Client
from harness.contract import Contract
from harness.daemon import Daemon
from test_tcp import ADMIN, ALICE, BOB, TOKENS, bearer, free_port, token_line, write_tokens

pytestmark = pytest.mark.testguest  # not about guests: QEMU would only be slower

READER = "reader-1234512345-abcdeabcde"
SECOND = "second-6789067890-fghijfghij"
VM, LABEL = "hers-and-nobody-elses", "a-label-of-hers"
EVERYBODY = {"/healthz", "/readyz"}
ALL_TENANTS = {"/metrics", "/audit"}  # and /admin


@dataclass
class World:
    """Alice's things, and how the clients of both look at them."""

    alice: Client
    second: Client  # another token of alice's tenant
    reader: Client  # one that may look only
    bob: Client
    admin: Client
    nobody: Client
    snapshot: str
    instance: str
    command: str  # that has ended

    def fill(self, template: str, hers: bool) -> str:
        """The path of a thing of hers, or of one that never was."""
        things = {
            "/vms/{id}": (VM, "never-was"),
            "/snapshots/{id}": (self.snapshot, "a" * len(self.snapshot)),
        }
        for start, (thing, none) in things.items():
            if template.startswith(start):
                template = template.replace("{id}", thing if hers else none, 1)
        template = template.replace("{eid}", self.command if hers else "a" * len(self.command))
        if "{" in template:
            pytest.fail(f"whose is the thing in {template}? Tell this test how to make one.")
        return template


@pytest.fixture
def world(
    start: Callable[..., Daemon], connect: Callable[..., Client], backend: Backend, tmp_path: Path
) -> World:
    port = free_port()
    tokens = (
        TOKENS
        + token_line("second", SECOND, "operate", "alice")
        + token_line("reader", READER, "read", "alice")
    )
    start([f"--listen=tcp:127.0.0.1:{port}", f"--token-file={write_tokens(tmp_path, tokens)}"])
    address = f"http://127.0.0.1:{port}"
    alice, second, reader, bob, admin = (
        connect(address, bearer(token)) for token in (ALICE, SECOND, READER, BOB, ADMIN)
    )
    vm = alice.create(id=VM, memory_mib=backend.memory_mib, labels={"l": LABEL})
    snapshot = alice.expect(201, "POST", f"/vms/{VM}/snapshots", json={}).json()["id"]
    command = alice.expect(201, "POST", f"/vms/{VM}/execs", json={"argv": ["/bin/true"]}).json()[
        "id"
    ]
    nobody = connect(address)
    return World(alice, second, reader, bob, admin, nobody, snapshot, vm["instance"], command)


def told(response: httpx.Response, path: str) -> tuple[int, Any]:
    """An answer without what differs by itself: the id that was asked for, and the request's."""
    words = [word for word in path.split("/") if len(word) > 8]
    text = response.text
    for word in words:
        text = text.replace(word, "ID")
    return response.status_code, re.sub(r'"request_id":"[0-9a-f]+"', "", text)


def test_R11_the_matrix_of_two_tenants_covers_every_route(world: World, contract: Contract) -> None:
    before = world.alice.get(VM)
    for method, template in contract.operations():
        where = f"{method} {template}"
        asked = contract.example(method, template)
        if (method, template) == ("POST", "/vms"):  # names things in its body: below
            continue
        if "{" in template:
            hers, none = world.fill(template, hers=True), world.fill(template, hers=False)
            answer = world.bob.request(method, hers, **asked)
            assert answer.status_code == 404, f"{where}: {answer.text}"
            never = world.bob.request(method, none, **asked)
            assert told(answer, hers) == told(never, none), where
        else:
            answer = world.bob.request(method, template, **asked)
            closed = template in ALL_TENANTS or template.startswith("/admin/")
            assert (answer.status_code == 403) == closed, f"{where}: {answer.text}"
        for secret in (world.instance, LABEL):
            assert secret not in answer.text, where
    following = {"params": {"follow": "true"}}
    world.bob.problem(404, "vm_not_found", "GET", f"/vms/{VM}/console", **following)
    theirs = {"snapshot": world.snapshot}
    world.bob.problem(404, "snapshot_not_found", "POST", "/vms", json=theirs)
    assert world.bob.list() == []
    after = world.alice.get(VM)
    assert after == before
    assert world.alice.exec(VM, ["/bin/echo", "well"]).out == "well\n"
    assert world.admin.get(VM)["owner"] == "alice"


def test_R11_a_reader_looks_and_changes_nothing(world: World, contract: Contract) -> None:
    before = world.alice.get(VM)
    for method, template in contract.operations():
        path = world.fill(template, hers=True) if "{" in template else template
        asked = contract.example(method, template)
        answer = world.reader.request(method, path, **asked)
        closed = template in ALL_TENANTS or template.startswith("/admin/") or method != "GET"
        assert (answer.status_code == 403) == closed, f"{method} {template}: {answer.text}"
        if closed:
            assert answer.json()["code"] == "forbidden"
            continue
        assert answer.status_code in (200, 400, 404), f"{method} {template}: {answer.text}"
        if "{" in template:
            of_a_file = template.endswith(("/files", "/ls", "/archive"))
            assert "not_found" not in answer.text or of_a_file, answer.text
    assert world.reader.get(VM) == world.alice.get(VM) == before
    problem = world.reader.problem(403, "forbidden", "DELETE", f"/vms/{VM}")
    assert "`reader`" in problem["detail"]
    assert "`operate`" in problem["detail"]


def test_R11_without_a_token_no_route_says_anything(world: World, contract: Contract) -> None:
    for method, template in contract.operations():
        if template in EVERYBODY:
            assert contract.operation(method, template)["security"] == []
            continue
        path = world.fill(template, hers=True) if "{" in template else template
        asked = contract.example(method, template)
        world.nobody.problem(401, "unauthorized", method, path, **asked)


def test_R11_an_administrator_who_names_two_tenants_vms_touches_neither(
    world: World, backend: Backend
) -> None:
    same = {"id": "same", "memory_mib": backend.memory_mib}
    hers, his = world.alice.create(**same), world.bob.create(**same)
    echo = {"argv": ["/bin/echo", "whose"]}
    for method, path, body in (
        ("GET", "", None),
        ("DELETE", "", None),
        ("GET", "/audit", None),
        ("GET", "/execs", None),
        ("POST", "/exec", echo),
        ("POST", "/pause", None),
    ):
        world.admin.problem(409, "vm_ambiguous", method, f"/vms/same{path}", json=body)
    made = world.alice.expect(201, "POST", "/vms/same/execs", json=echo)
    command = made.headers["location"]
    seen = [client.expect(200, "GET", command).json() for client in (world.admin, world.alice)]
    assert seen[0] == seen[1], "a command's id is one tenant's"
    world.admin.expect(204, "DELETE", command)
    assert (world.alice.get("same"), world.bob.get("same")) == (hers, his)
    world.alice.delete("same")
    assert world.admin.get("same")["owner"] == "bob"
    audit = world.admin.expect(200, "GET", "/vms/same/audit").json()["entries"]
    assert {entry["instance"] for entry in audit} == {his["instance"]}


def test_R11_a_tenants_tokens_share_what_each_made(world: World, backend: Backend) -> None:
    assert world.second.get(VM) == world.alice.get(VM)
    world.second.problem(409, "id_taken", "POST", "/vms", json={"id": VM})
    made = world.second.create(id="seconds", memory_mib=backend.memory_mib)
    assert made["owner"] == "alice"
    assert {vm["id"] for vm in world.reader.list()} == {VM, "seconds"}
    world.alice.delete("seconds")
    world.second.problem(404, "vm_gone", "GET", "/vms/seconds")
    world.bob.problem(404, "vm_not_found", "GET", "/vms/seconds")
