"""Prefer: respond-async, DELETE while creating, filters and cursors."""

from harness.backend import Backend
from harness.client import Client
from harness.daemon import Daemon

ASYNC = {"Prefer": "respond-async"}


def test_R03_async_create_answers_before_the_guest_is_up(client: Client, backend: Backend) -> None:
    spec = {"id": "later", "memory_mib": backend.memory_mib}
    response = client.expect(202, "POST", "/vms", json=spec, headers=ASYNC)
    assert response.headers["location"] == "/vms/later"
    assert response.headers["preference-applied"] == "respond-async"
    assert response.json()["state"] == "creating"
    vm = client.wait_state("later", "running")
    assert vm["instance"] == response.json()["instance"]
    assert client.exec("later", ["/bin/echo", "up"]).out == "up\n"


def test_R07_an_async_create_is_checked_at_once(client: Client) -> None:
    client.problem(400, "unknown_field", "POST", "/vms", json={"colour": "red"}, headers=ASYNC)


def test_R04_delete_while_creating_leaves_nothing(
    client: Client, daemon: Daemon, backend: Backend
) -> None:
    for number in range(2 if backend.emulated else 10):
        vm_id = f"brief-{number}"
        spec = {"id": vm_id, "memory_mib": backend.memory_mib}
        client.expect(202, "POST", "/vms", json=spec, headers=ASYNC)
        client.delete(vm_id)
        client.problem(404, "vm_gone", "GET", f"/vms/{vm_id}")
    assert client.list() == []
    assert daemon.vmms() == {}
    assert daemon.vm_rules() == []
    daemon.assert_no_leftovers()


def test_R01_exec_before_the_guest_is_up_is_refused(client: Client, backend: Backend) -> None:
    spec = {"id": "early", "memory_mib": backend.memory_mib}
    client.expect(202, "POST", "/vms", json=spec, headers=ASYNC)
    response = client.request("POST", "/vms/early/exec", json={"argv": ["/bin/echo", "x"]})
    if response.status_code != 200:  # a test guest may be up already
        assert (response.status_code, response.json()["code"]) == (409, "vm_not_running")
    client.wait_state("early", "running")


def test_R01_list_by_label_state_and_page(client: Client, backend: Backend) -> None:
    names = [f"page-{number}" for number in range(5)]
    for number, vm_id in enumerate(names):
        labels = {"parity": "even" if number % 2 == 0 else "odd", "kind": "page"}
        client.create(id=vm_id, labels=labels, memory_mib=backend.memory_mib)
    assert [vm["id"] for vm in client.list()] == names
    assert [vm["id"] for vm in client.list(label="parity=odd")] == ["page-1", "page-3"]
    assert len(client.list(label="kind")) == 5
    assert client.list(label="kind=other") == []
    assert [vm["id"] for vm in client.list(state="running")] == names
    assert client.list(state="creating") == []
    seen: list[str] = []
    path = "/vms?limit=2&label=kind"
    while path:
        response = client.expect(200, "GET", path)
        page = response.json()
        assert len(page["vms"]) <= 2
        seen += [vm["id"] for vm in page["vms"]]
        if "page-2" in seen and "page-0" in [vm["id"] for vm in client.list()]:
            client.delete("page-0")  # what comes and goes does not move the cursor
        link = response.links.get("next", {}).get("url", "")
        assert bool(link) == bool(page["next_cursor"])
        path = link
    assert seen == names
