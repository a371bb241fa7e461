"""R01: openapi.yaml and the service are the same list of routes."""

import pytest

from harness.client import Client, raw
from harness.contract import Contract
from harness.daemon import Daemon

METHODS = ("GET", "PUT", "POST", "DELETE", "PATCH", "OPTIONS")


def filled(path: str) -> str:
    """Ids of nobody."""
    return path.replace("{id}", "nobody").replace("{eid}", "a" * 20)


def answers(client: Client, method: str, path: str) -> int:
    """Every answer goes past the contract in the client; bodies are right, ids are of nobody."""
    bodies = {
        "/vms": {"image": "no-such-image"},
        "/vms/{id}": {},
        "/vms/{id}/exec": {"argv": ["true"]},
        "/vms/{id}/execs": {"argv": ["true"]},
        "/vms/{id}/execs/{eid}/stdin": {"offset": 0},
        "/vms/{id}/execs/{eid}/resize": {"rows": 1, "cols": 1},
        "/vms/{id}/keepalive": {},
        "/vms/{id}/snapshots": {},
        "/vms/{id}/fork": {},
        "/admin/drain": {"deadline_s": -1},
    }
    queries = {f"/vms/{{id}}/{name}": {"path": "/tmp/file"} for name in ("files", "ls", "archive")}
    queries["/events"] = {"follow": "false"}
    json = bodies.get(path) if method in ("POST", "PATCH") else None
    return client.request(method, filled(path), json=json, params=queries.get(path)).status_code


@pytest.mark.core
def test_R01_every_route_of_the_contract_answers(client: Client, contract: Contract) -> None:
    operations = contract.operations()
    assert ("POST", "/vms") in operations
    assert ("POST", "/vms/{id}/exec") in operations
    for method, path in operations:
        status = answers(client, method, path)
        expected = {
            ("POST", "/vms"): 404,
            ("DELETE", "/admin/cordon"): 204,
            ("POST", "/admin/drain"): 400,
        }.get((method, path), 404 if "{id}" in path else 200)
        assert status == expected, f"{method} {path}"


def test_R01_no_method_beyond_the_contract(client: Client, contract: Contract) -> None:
    known = set(contract.operations())
    for path in {path for _, path in known}:
        allowed = {method for method, known_path in known if known_path == path}
        for method in METHODS:
            if method in allowed:
                continue
            response = client.request(method, filled(path))
            assert response.status_code == 405, f"{method} {path}: {response.text}"
            listed = {word.strip() for word in response.headers["allow"].split(",")}
            assert listed - {"HEAD"} == allowed


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/vm",
        "/vms/x/y",
        "/vms/x/exec/",
        "/VMS",
        "/vms/",
        "/v1/vms",
        "/openapi.json",
        "/metrics/x",
    ],
)
def test_R01_no_path_beyond_the_contract(client: Client, path: str) -> None:
    client.problem(404, "route_not_found", "GET", path)


def test_R01_the_served_contract_is_the_one_in_the_tree(
    client: Client, contract: Contract, daemon: Daemon
) -> None:
    import yaml

    served = yaml.safe_load(client.expect(200, "GET", "/openapi.yaml").content)
    assert served == contract.document


def test_R01_request_ids_differ(client: Client) -> None:
    first = client.problem(404, "route_not_found", "GET", "/nowhere")
    second = client.problem(404, "route_not_found", "GET", "/nowhere")
    assert first["request_id"] != second["request_id"]


def test_R01_health_needs_no_identity_and_says_little(daemon: Daemon) -> None:
    status, _, body = raw(daemon.socket_path, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (status, body) == (200, b'{"status":"ok"}')
