"""What both halves log: as text or as JSON, with the request's id, and never a secret."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.backend import Backend
from harness.client import Client
from harness.daemon import Daemon
from test_tcp import ALICE, bearer, free_port, write_tokens

pytestmark = pytest.mark.testguest  # not about guests: QEMU would only be slower

SECRETS = ("tell-no-one-0001", "tell-no-one-0002", "tell-no-one-0003", "tell-no-one-0004")


def lines(daemon: Daemon) -> list[dict[str, Any]]:
    return [json.loads(line) for line in daemon.log.splitlines()]


def test_R05_both_halves_log_json_that_names_the_request(
    start: Callable[..., Daemon], connect: Callable[..., Client], backend: Backend
) -> None:
    daemon = start(["--log-format=json", "--log-level=debug"])
    client = connect(daemon)
    created = client.expect(201, "POST", "/vms", json={"id": "told", "memory_mib": 128})
    refused = client.request("GET", '/vms/x"y')
    client.delete("told")
    daemon.stop()
    told = lines(daemon)
    assert {line["program"] for line in told} == {"motted", "motte-front"}
    assert all({"time", "level", "program", "message"} <= set(line) for line in told)
    by_id = {line["request_id"]: line for line in told if "method" in line}
    line = by_id[created.headers["x-request-id"]]
    assert (line["method"], line["route"], line["status"]) == ("POST", "/vms", 201)
    assert line["ms"] > 0
    assert line["caller"] == "root"
    line = by_id[refused.headers["x-request-id"]]
    assert (line["status"], line["code"]) == (refused.status_code, refused.json()["code"])
    assert "route" not in line
    said = [
        line["message"]
        for line in told
        if line["program"] == "motted" and line.get("request_id") == created.headers["x-request-id"]
    ]
    instance = created.json()["instance"]
    assert said[0] == "reserve: done"
    assert {f"guard {instance}: done", f"launch {instance}: done"} <= set(said)
    assert f"kill {instance}: done" not in said, "that was another request's"


@pytest.mark.parametrize("form", ["text", "json"])
def test_R11_neither_tokens_nor_what_commands_are_given_are_logged(
    start: Callable[..., Daemon], connect: Callable[..., Client], tmp_path: Path, form: str
) -> None:
    port = free_port()
    tokens = write_tokens(tmp_path)
    daemon = start(
        [
            f"--listen=tcp:127.0.0.1:{port}",
            f"--token-file={tokens}",
            "--log-level=debug",
            f"--log-format={form}",
        ]
    )
    alice = connect(f"http://127.0.0.1:{port}", bearer(ALICE))
    wrong = connect(f"http://127.0.0.1:{port}", bearer(ALICE[:-1] + "x"))
    wrong.problem(401, "unauthorized", "GET", "/vms")
    alice.create(id="told", memory_mib=128)
    stdin, argument, variable, query = SECRETS
    body = {"argv": ["cat"], "stdin": stdin, "env": {"KEY": variable}}
    alice.expect(200, "POST", "/vms/told/exec", json=body)
    alice.request("POST", "/vms/told/exec", json={"argv": ["no-such-program", argument]})
    alice.problem(400, "invalid_query", "GET", "/vms", params={"token": query})
    alice.delete("told")
    daemon.stop()
    log = daemon.log
    assert "/vms/{id}/exec" in log
    for secret in (*SECRETS, ALICE, ALICE[:-1]):
        assert secret not in log
