"""R02, R11, R25: what happens to VMs, as one sequence that goes on over everything."""

import json
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.backend import Backend
from harness.client import Client
from harness.daemon import Daemon
from harness.events import Event, Events, parse
from harness.metrics import scrape, total
from harness.waiting import wait_until
from test_tcp import ADMIN, ALICE, BOB, bearer, free_port, token_line, write_tokens

pytestmark = pytest.mark.testguest  # not about guests

BOOT = 1 << 32  # numbers of one boot


def kept(client: Client, after: int | str = 0, **query: Any) -> list[Event]:
    """All there is, as one reading."""
    asked = {"after": after, "follow": "false", **query}
    lines = client.expect(200, "GET", "/events", params=asked).content.splitlines(keepends=True)
    return list(parse(iter(lines)))


def entry(event: Event) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(event.raw)
    assert (str(told["seq"]), told["kind"]) == (event.id, event.name)
    return told


def words(events: list[Event]) -> list[tuple[str, str]]:
    return [(entry(event)["id"], event.name) for event in events]


LIFE = ["created", "guards_checked", "running"]


def lived(vm_id: str, *more: str) -> list[tuple[str, str]]:
    return [(vm_id, kind) for kind in (*LIFE, *more)]


def until(events: Iterator[Event], kind: str) -> list[Event]:
    seen = []
    for event in events:
        seen.append(event)
        if event.name == kind:
            return seen
    raise AssertionError(f"no {kind}: {seen}")


def sql(daemon: Daemon, text: str) -> None:
    with sqlite3.connect(daemon.state_dir / "front" / "motte.db") as db:
        db.execute(text)
    db.close()


def test_R02_events_go_on_over_a_restart_a_kill_and_a_boot(
    start: Callable[..., Daemon], connect: Callable[..., Client], backend: Backend
) -> None:
    """Cut off at whichever place, a reader goes on as one that never was."""
    daemon = start()
    client = connect(daemon)
    with Events(daemon.socket_path, "/events") as stream:
        live = iter(stream)
        began = next(live)
        client.create(id="a", memory_mib=backend.memory_mib)
        seen = until(live, "running")
        assert began.name == "start"
        assert json.loads(began.raw) == {"after": int(began.id)}
        daemon.stop()
        assert list(live) == [], "it ends with the service"
    daemon.start()
    seen += kept(connect(daemon), seen[-1].id)
    daemon.stop(9)
    client = connect(daemon.start())
    client.create(id="b", memory_mib=backend.memory_mib)
    with Events(daemon.socket_path, "/events?kind=ended", after=seen[-1].id) as stream:
        client.delete("b")
        assert words([next(iter(stream))]) == [("b", "ended")]
    seen += kept(client, seen[-1].id)
    daemon.stop()
    sql(daemon, "UPDATE audit_size SET boot = 'another'")
    client = connect(daemon.start())
    client.delete("a")
    seen += kept(client, seen[-1].id)
    adopted = ("a", "adopted")
    assert words(seen) == [
        *lived("a"), adopted, adopted, *lived("b", "ended"), adopted, ("a", "ended"),
    ]  # fmt: skip
    assert seen == kept(client, began.id) == kept(client)
    numbers = [int(event.id) for event in seen]
    assert numbers == sorted(set(numbers))
    boots = [number // BOOT for number in numbers]
    assert boots == [boots[0]] * (len(seen) - 2) + [boots[0] + 1] * 2
    for cut in range(len(seen)):
        assert kept(client, seen[cut].id) == seen[cut + 1 :]
    with Events(daemon.socket_path, "/events?follow=false&after=0", after=seen[2].id) as stream:
        assert list(stream) == seen[3:], "the header goes before the parameter"


def test_R25_who_fell_behind_is_told_of_the_gap(
    start: Callable[..., Daemon], connect: Callable[..., Client], backend: Backend
) -> None:
    client = connect(start())
    client.create(id="a", memory_mib=backend.memory_mib)
    first = kept(client)[0]
    client.create(id="b", memory_mib=backend.memory_mib)
    for _ in range(51):
        client.pause("a")
        client.resume("a")
    events = kept(client, first.id)
    gaps = [at for at, event in enumerate(events) if event.name == "gap"]
    assert len(gaps) == 1
    assert words(events[: gaps[0]]) == lived("b")
    oldest = events[gaps[0] + 1]
    assert json.loads(events[gaps[0]].raw) == {"first_available": int(oldest.id), "id": "a"}
    assert int(events[gaps[0]].id) == int(oldest.id) - 1
    assert len([event for event in events if event.name in ("paused", "resumed")]) == 100
    assert kept(client, events[gaps[0]].id) == events[gaps[0] + 1 :], "it is told once"
    assert "gap" not in [event.name for event in kept(client)], "nothing was missed"
    newest = int(events[-1].id)
    gap, *rest = kept(client, newest + BOOT)
    assert gap.name == "gap"
    assert rest == kept(client)


@pytest.fixture
def callers(
    start: Callable[..., Daemon], connect: Callable[..., Client], tmp_path: Path
) -> tuple[Daemon, dict[str, Client]]:
    port = free_port()
    tokens = token_line("a-token", ALICE, "operate", "alice") + token_line("bob", BOB)
    tokens += token_line("admin", ADMIN, "admin") + token_line("slow", "x" * 26, "operate").replace(
        "\n", " rate=1\n"
    )
    daemon = start(
        [f"--listen=tcp:127.0.0.1:{port}", f"--token-file={write_tokens(tmp_path, tokens)}"]
    )
    address = f"http://127.0.0.1:{port}"
    secrets = {"alice": ALICE, "bob": BOB, "admin": ADMIN, "slow": "x" * 26, "nobody": "wrong"}
    return daemon, {name: connect(address, bearer(text)) for name, text in secrets.items()}


def test_R11_a_tenant_sees_the_events_of_its_own_vms(
    callers: tuple[Daemon, dict[str, Client]], backend: Backend
) -> None:
    alice, bob, admin = (callers[1][name] for name in ("alice", "bob", "admin"))
    for client, vm_id in ((alice, "hers"), (bob, "same"), (alice, "same")):
        client.create(id=vm_id, memory_mib=backend.memory_mib)
    assert words(kept(alice)) == lived("hers") + lived("same")
    assert words(kept(bob)) == lived("same")
    assert sorted([*kept(alice), *kept(bob)], key=lambda event: int(event.id)) == kept(admin)
    assert {entry(event)["owner"] for event in kept(bob)} == {"bob"}
    assert kept(bob, vm="hers") == []
    assert words(kept(alice, vm="same")) == lived("same")
    assert words(kept(admin, kind=["created", "running"], vm="hers")) == [
        ("hers", "created"), ("hers", "running"),
    ]  # fmt: skip
    callers[1]["nobody"].problem(401, "unauthorized", "GET", "/events")


@pytest.mark.parametrize(
    "query",
    ["after=x", "after=-1", "after=1&after=2", "vm=", "vm=a/b", "kind=died", "follow=no", "x=1"],
)
def test_R25_a_bad_question_is_refused(client: Client, query: str) -> None:
    client.problem(400, "invalid_query", "GET", f"/events?{query}")


def test_R25_an_id_of_another_kind_is_refused(client: Client) -> None:
    client.problem(400, "bad_request", "GET", "/events", headers={"Last-Event-ID": "end"})


def calls_of(admin: Client, after: int = 0) -> list[dict[str, Any]]:
    """All of them, page by page."""
    path: str | None = f"/audit?limit=7&cursor={after or 1}"
    seen: list[dict[str, Any]] = []
    while path is not None:
        response = admin.expect(200, "GET", path)
        seen += response.json()["entries"]
        path = str(response.links["next"]["url"]) if response.json()["next_cursor"] else None
    return seen


def short(call: dict[str, Any]) -> tuple[Any, ...]:
    names = ("caller", "token", "method", "route", "path", "vm", "status", "code")
    return tuple(call[name] for name in names)


def test_R11_each_call_that_changes_something_is_in_the_audit(
    callers: tuple[Daemon, dict[str, Client]], backend: Backend
) -> None:
    """Done or refused, by whom, and nothing of what was said."""
    daemon, by = callers
    alice, admin, vm = by["alice"], by["admin"], "/vms/{id}"
    memory = backend.memory_mib
    made = alice.expect(201, "POST", "/vms", json={"memory_mib": memory}).json()["id"]
    at = f"/vms/{made}"
    secret = {"argv": ["/bin/cat"], "stdin": "a-secret", "env": {"KEY": "a-secret"}}
    alice.expect(200, "POST", f"{at}/exec", json=secret, headers={"X-Any": "a-secret"})
    alice.expect(200, "PATCH", at, json={"labels": {"l": "a-secret"}})
    alice.expect(200, "GET", at)
    put = alice.request(
        "PUT", f"{at}/files", params={"path": "/tmp/a-secret"}, content=b"a-secret",
        headers={"Content-Type": "application/octet-stream"},
    )  # fmt: skip
    assert put.is_success
    by["bob"].problem(404, "vm_not_found", "DELETE", at)
    by["nobody"].problem(401, "unauthorized", "DELETE", at)
    by["bob"].problem(403, "forbidden", "POST", "/admin/cordon")
    wait_until(lambda: by["slow"].request("DELETE", "/vms/x").status_code == 429)
    alice.problem(404, "route_not_found", "POST", "/nowhere")
    alice.problem(405, "method_not_allowed", "DELETE", "/vms")
    alice.problem(400, "invalid_json", "POST", "/vms", content=b"a-secret", headers={
        "Content-Type": "application/json"})  # fmt: skip
    answer = alice.request("DELETE", at)
    calls = calls_of(admin)
    alices = ("alice", "a-token")
    told = [short(call) for call in calls if call["caller"] != "slow"]
    assert told == [
        (*alices, "POST", "/vms", "/vms", made, 201, None),
        (*alices, "POST", f"{vm}/exec", f"{at}/exec", made, 200, None),
        (*alices, "PATCH", vm, at, made, 200, None),
        (*alices, "PUT", f"{vm}/files", f"{at}/files", made, put.status_code, None),
        ("bob", "bob", "DELETE", vm, at, made, 404, "vm_not_found"),
        (None, None, "DELETE", vm, at, made, 401, "unauthorized"),
        ("bob", "bob", "POST", "/admin/cordon", "/admin/cordon", None, 403, "forbidden"),
        (*alices, "POST", None, "/nowhere", None, 404, "route_not_found"),
        (*alices, "DELETE", None, "/vms", None, 405, "method_not_allowed"),
        (*alices, "POST", "/vms", "/vms", None, 400, "invalid_json"),
        (*alices, "DELETE", vm, at, made, 204, None),
    ]
    assert ("slow", "slow", "DELETE", vm, "/vms/x", "x", 429, "rate_limited") in map(short, calls)
    assert calls[-1]["request_id"] == answer.headers["x-request-id"]
    assert "a-secret" not in str(calls)
    assert not any(text in str(calls) for text in (ALICE, BOB, ADMIN))
    for name in ("alice", "bob"):
        by[name].problem(403, "forbidden", "GET", "/audit")
    daemon.stop()
    daemon.start()
    assert calls_of(admin) == calls
    assert calls_of(admin, calls[3]["seq"]) == calls[4:]


def test_R25_a_flood_of_refused_calls_stays_bounded(
    start: Callable[..., Daemon], connect: Callable[..., Client]
) -> None:
    """While nothing can be written; what is lost is counted, and nobody is held up."""
    enough = 1300  # more than may wait
    daemon = start()
    client = connect(daemon)
    other = sqlite3.connect(daemon.state_dir / "front" / "motte.db", isolation_level=None)
    try:
        other.execute("BEGIN IMMEDIATE")
        for _ in range(enough):
            assert client.http.delete("/vms").status_code == 405
        other.execute("ROLLBACK")
    finally:
        other.close()

    def counted() -> tuple[float, float]:
        client.expect(200, "GET", "/audit?limit=1")
        samples = scrape(client)[1]
        return total(samples, "motte_call_audit_entries"), total(
            samples, "motte_call_audit_lost_total"
        )

    entries, lost = counted()
    assert lost > 0
    assert entries + lost == enough
    client.problem(405, "method_not_allowed", "DELETE", "/vms")
    assert counted() == (entries + 1, lost)
