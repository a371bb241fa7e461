"""What must be refused: precisely, and without any effect."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from harness import host
from harness.client import Client, raw
from harness.daemon import Daemon

JSON = b"Content-Type: application/json\r\n"


@pytest.fixture(autouse=True)
def no_effect(daemon: Daemon) -> Iterator[None]:
    """Rows, rules, processes and files are the same after each test here as before it."""
    before = (daemon.rows(), daemon.rules(), daemon.vmms(), host.files_below(daemon.run_dir))
    yield
    after = (daemon.rows(), daemon.rules(), daemon.vmms(), host.files_below(daemon.run_dir))
    assert after == before


SPECS: list[tuple[str, int, str, dict[str, Any]]] = [
    ("R07_unknown_field", 400, "unknown_field", {"colour": "red"}),
    ("R07_a_host_path_is_no_field", 400, "unknown_field", {"kernel_path": "/etc/passwd"}),
    ("R07_wrong_type_of_vcpus", 400, "wrong_type", {"vcpus": "2"}),
    ("R07_wrong_type_of_id", 400, "wrong_type", {"id": 7}),
    ("R07_wrong_type_of_labels", 400, "wrong_type", {"labels": ["a"]}),
    ("R08_networking", 400, "networking_refused", {"enable_networking": True}),
    ("R08_networking_wrong_type", 400, "wrong_type", {"enable_networking": "yes"}),
    ("R09_no_vcpus", 400, "out_of_range", {"vcpus": 0}),
    ("R09_odd_vcpus", 400, "out_of_range", {"vcpus": 3}),
    ("R09_too_many_vcpus", 400, "out_of_range", {"vcpus": 34}),
    ("R09_negative_vcpus", 400, "out_of_range", {"vcpus": -2}),
    ("R09_too_little_memory", 400, "out_of_range", {"memory_mib": 127}),
    ("R09_too_much_memory", 400, "out_of_range", {"memory_mib": 4294967295}),
    ("R09_fractional_memory", 400, "wrong_type", {"memory_mib": 128.5}),
    ("R09_ttl_zero", 400, "out_of_range", {"ttl_s": 0}),
    ("R10_id_traversal", 400, "invalid_id", {"id": "../../etc/passwd"}),
    ("R10_id_slash", 400, "invalid_id", {"id": "a/b"}),
    ("R10_id_dot", 400, "invalid_id", {"id": "."}),
    ("R10_id_empty", 400, "invalid_id", {"id": ""}),
    ("R10_id_65_characters", 400, "invalid_id", {"id": "a" * 65}),
    ("R10_id_utf8", 400, "invalid_id", {"id": "käfer"}),
    ("R10_id_percent", 400, "invalid_id", {"id": "a%00b"}),
    ("R10_id_newline", 400, "invalid_id", {"id": "a\nb"}),
    ("R10_id_option", 400, "invalid_id", {"id": "--help me"}),
    ("R06_id_nul", 400, "invalid_json", {"id": "a\x00b"}),
    ("R06_label_nul", 400, "invalid_json", {"labels": {"a": "\x00"}}),
    ("R07_unknown_image", 404, "image_not_found", {"image": "no-such-image"}),
    ("R22_unknown_level", 400, "invalid_value", {"seccomp": "none"}),
    ("R23_permissive_needs_without", 403, "seccomp_level_refused", {"seccomp": "permissive"}),
]


@pytest.mark.parametrize(("name", "status", "code", "spec"), SPECS, ids=[s[0] for s in SPECS])
def test_spec(client: Client, name: str, status: int, code: str, spec: dict[str, Any]) -> None:
    body = client.problem(status, code, "POST", "/vms", json=spec)
    if code == "unknown_field":
        assert "memory_mib" in body["detail"], "the ones there are"
    field = next(iter(spec))
    assert field in body["detail"] or field == "image" or code == "invalid_json", body


BODIES: list[tuple[str, int, str, bytes]] = [
    ("R06_truncated", 400, "invalid_json", b'{"id": "a"'),
    ("R06_empty", 400, "invalid_json", b""),
    ("R06_not_an_object", 400, "wrong_type", b"[1]"),
    ("R06_two_texts", 400, "invalid_json", b"{} {}"),
    ("R06_duplicate_key", 400, "invalid_json", b'{"vcpus": 1, "vcpus": 2}'),
    ("R06_lone_surrogate", 400, "invalid_json", b'{"id": "\\ud800"}'),
    ("R06_invalid_utf8", 400, "invalid_json", b'{"id": "\xff"}'),
    ("R06_deep", 400, "invalid_json", b'{"labels":' + b"[" * 200 + b"]" * 200 + b"}"),
    ("R06_huge_number", 400, "wrong_type", b'{"vcpus": 1e400}'),
    ("R31_too_large", 413, "body_too_large", b'{"id": "' + b"a" * 20000 + b'"}'),
]


@pytest.mark.parametrize(("name", "status", "code", "text"), BODIES, ids=[b[0] for b in BODIES])
def test_body(client: Client, name: str, status: int, code: str, text: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    response = client.request("POST", "/vms", content=text, headers=headers)
    assert response.status_code == status, response.text
    allowed = {code, "invalid_json"} if code == "wrong_type" else {code}
    assert response.json()["code"] in allowed


def test_R31_a_body_that_claims_to_be_huge_is_refused_before_it_comes(daemon: Daemon) -> None:
    head = b"POST /vms HTTP/1.1\r\nHost: x\r\n" + JSON + b"Content-Length: 99999999999\r\n\r\n"
    status, _, body = raw(daemon.socket_path, head)
    assert (status, json.loads(body)["code"]) == (413, "body_too_large")


@pytest.mark.parametrize(
    "target",
    [b"/vms/../vms", b"/vms/%2e%2e/x", b"/vms/a%00b", b"//vms", b"/vms/./x", b"/vms/a%2fb"],
    ids=["dots", "encoded-dots", "nul", "double-slash", "dot", "encoded-slash"],
)
def test_R10_targets_that_two_readers_read_differently(daemon: Daemon, target: bytes) -> None:
    request = b"GET " + target + b" HTTP/1.1\r\nHost: x\r\n\r\n"
    status, _, body = raw(daemon.socket_path, request)
    assert status == 400, body
    assert json.loads(body)["code"] in ("bad_request", "invalid_id")


@pytest.mark.parametrize(
    "headers",
    [
        b"Content-Length: 2\r\nContent-Length: 3\r\n",
        b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n",
        b"Host: y\r\nContent-Length: 2\r\n",
    ],
    ids=["two-lengths", "length-and-chunked", "two-hosts"],
)
def test_R31_requests_that_can_be_smuggled(daemon: Daemon, headers: bytes) -> None:
    request = b"POST /vms HTTP/1.1\r\nHost: x\r\n" + JSON + headers + b"\r\n{}"
    status, answered, _ = raw(daemon.socket_path, request)
    assert status == 400
    assert answered.get("connection", "").lower() == "close"


def test_R06_a_body_that_is_not_json_by_type(client: Client) -> None:
    headers = {"Content-Type": "text/plain"}
    client.problem(415, "unsupported_media_type", "POST", "/vms", content=b"{}", headers=headers)


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=501",
        "limit=x",
        "state=happy",
        "cursor=../x",
        "limit=1&limit=2",
        "a=b",
        "label=",
    ],
)
def test_R01_bad_queries(client: Client, query: str) -> None:
    client.problem(400, "invalid_query", "GET", f"/vms?{query}")


def test_R10_unknown_and_odd_ids_in_paths(client: Client) -> None:
    client.problem(404, "vm_not_found", "GET", "/vms/nobody")
    client.problem(404, "vm_not_found", "DELETE", "/vms/nobody")
    client.problem(404, "vm_not_found", "POST", "/vms/nobody/exec", json={"argv": ["true"]})
    client.problem(400, "invalid_id", "GET", "/vms/" + "a" * 65)
    client.problem(400, "invalid_id", "GET", "/vms/a.b")


EXECS: list[tuple[str, str, dict[str, Any]]] = [
    ("R07_nothing_to_run", "missing_field", {}),
    ("R07_empty_argv", "out_of_range", {"argv": []}),
    ("R07_number_in_argv", "wrong_type", {"argv": ["a", 1]}),
    ("R07_both_ways", "invalid_value", {"argv": ["a"], "shell": "a"}),
    ("R07_relative_cwd", "invalid_value", {"argv": ["a"], "cwd": "tmp"}),
    ("R07_equals_in_env", "invalid_value", {"argv": ["a"], "env": {"a=b": "c"}}),
    ("R07_no_time", "out_of_range", {"argv": ["a"], "timeout_ms": 0}),
    ("R07_too_much_time", "out_of_range", {"argv": ["a"], "timeout_ms": 86400000}),
    ("R06_nul_in_argv", "invalid_json", {"argv": ["a\x00b"]}),
    ("R07_unknown_exec_field", "unknown_field", {"argv": ["a"], "tty": True}),
]


@pytest.mark.parametrize(("name", "code", "body"), EXECS, ids=[e[0] for e in EXECS])
def test_exec_body(client: Client, name: str, code: str, body: dict[str, Any]) -> None:
    client.problem(400, code, "POST", "/vms/nobody/exec", json=body)


def test_R07_refusals_do_not_depend_on_who_asks(
    daemon: Daemon, connect: Callable[..., Client]
) -> None:
    for _ in range(2):
        connect(daemon).problem(400, "unknown_field", "POST", "/vms", json={"colour": "red"})
