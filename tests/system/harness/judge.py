"""schemathesis, which reads openapi.yaml and tries to catch the service at something else."""

import copy
import json
import os
import subprocess
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

# What schemathesis is told of this API. A request that is as openapi.yaml says may ask for what is
# not there, or is in another state; it may be too long in all, the guest may refuse it, or its time
# be up; a command that runs is in the way of a snapshot. One that is not may be too long first of
# all. The audit of a VM outlives it. A digest may be well-formed and another file's. All checks are
# on as they are: `--checks all` would turn on those that are off here too.
CONFIG = """
[generation]
database = "none"
[checks]
positive_data_acceptance.expected-statuses = [
    "2xx", 401, 403, 404, 409, 410, 413, 416, 422, 503, 504,
]
negative_data_rejection.expected-statuses = [400, 401, 403, 404, 405, 409, 413, 414, 415, 422]
# server_errors_are_the_callers_doing is stricter about 503 and 504
not_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", 503, 504]
[[operations]]
include-operation-id = "getAudit"
checks.use_after_free.enabled = false
[[operations]]
include-operation-id = ["putFile", "putArchive"]
checks.positive_data_acceptance.expected-statuses = ["2xx", 400, 401, 403, 404, 409, 413, 422, 504]
"""


def drop_cursor(operation: Any) -> None:
    """Only the service knows which texts are cursors: any other is 400, as no schema can say."""
    if isinstance(operation, dict) and "parameters" in operation:
        operation["parameters"] = [
            parameter
            for parameter in operation["parameters"]
            if parameter.get("name") != "cursor" or parameter["schema"].get("type") == "integer"
        ]


def lasts(operation: dict[str, Any]) -> bool:
    """An event stream, as long as its command; a wait, until what it waits for."""
    names = [parameter.get("name") for parameter in operation.get("parameters", [])]
    return "text/event-stream" in str(operation["responses"]) or "timeout_s" in names


def drop_following(operation: dict[str, Any]) -> None:
    """An answer that can be a stream is judged as the one that it is without."""
    content = operation["responses"].get("200", {}).get("content", {})
    if "application/json" in content and content.pop("text/event-stream", None):
        del operation["responses"]["204"]
        operation["parameters"] = [
            parameter
            for parameter in operation["parameters"]
            if parameter.get("name") not in ("follow", "Last-Event-ID")
        ]


def drop_what_lasts(contract: dict[str, Any]) -> None:
    """Who judges answers would wait for its end: it has tests of its own."""
    for path, item in list(contract["paths"].items()):
        for method, operation in list(item.items()):
            if method == "parameters":
                continue
            drop_following(operation)
            if lasts(operation):
                del item[method]
        if set(item) <= {"parameters"}:
            del contract["paths"][path]


COMMAND_MS = 1000


def shorten_commands(contract: dict[str, Any]) -> None:
    """Who judges waits some seconds for an answer."""
    commands = contract["components"]["schemas"]["ExecSpec"]
    commands["properties"]["timeout_ms"]["default"] = COMMAND_MS
    body = contract["paths"]["/vms/{id}/execs"]["post"]["requestBody"]
    for example in body["content"]["application/json"]["examples"].values():
        example["value"]["timeout_ms"] = COMMAND_MS


def for_host(
    document: dict[str, Any], capabilities: dict[str, Any], images: Sequence[str]
) -> dict[str, Any]:
    """openapi.yaml as one host keeps it, whose limits GET /capabilities tells; on a listener that
    wants tokens. What POST /vms makes is led on to every route of a VM, so that a new route is
    tried on a real one."""
    contract = copy.deepcopy(document)
    contract["security"] = [{"token": []}]
    drop_what_lasts(contract)
    shorten_commands(contract)
    schemas = contract["components"]["schemas"]
    limits, spec = capabilities["limits"], schemas["VmSpec"]["properties"]
    spec["image"] = {"enum": [*images, "no-such-image"]}
    spec["memory_mib"]["maximum"] = limits["max_memory_mib"]
    spec["disk_mib"]["maximum"] = limits["max_disk_mib"]
    spec["vcpus"]["enum"] = [n for n in spec["vcpus"]["enum"] if n <= limits["max_vcpus"]]
    spec["seccomp"]["enum"] = ["minimal", "basic"]
    for item in contract["paths"].values():
        for operation in item.values():
            drop_cursor(operation)
    for made, path in (("/vms", "/vms/{id}"), ("/vms/{id}/snapshots", "/snapshots/{id}")):
        created = contract["paths"][made]["post"]["responses"]["201"]
        created["links"] = {
            operation["operationId"]: {
                "operationId": operation["operationId"],
                "parameters": {"id": "$response.body#/id"},
            }
            for known, item in contract["paths"].items()
            if known == path or known.startswith(path + "/")
            for method, operation in item.items()
            if method != "parameters"
        }
    return contract


@dataclass
class Verdict:
    passed: bool
    words: str
    calls: Counter[tuple[str, str, int]]  # method, operation, status

    @property
    def operations(self) -> set[tuple[str, str]]:
        """METHOD and path template of those that were called as the contract has them."""
        return {
            (method, label.split(" ", 1)[1])
            for method, label, _ in self.calls
            if label.split(" ", 1)[0] == method
        }


def judge(
    contract: dict[str, Any], url: str, token: str, folder: Path, examples: int, *more: str
) -> Verdict:
    """All checks and phases, links included; `examples` bound the random ones of each operation."""
    schema, config, calls = folder / "openapi.yaml", folder / "schemathesis.toml", folder / "calls"
    schema.write_text(yaml.safe_dump(contract), encoding="utf-8")
    config.write_text(CONFIG, encoding="utf-8")
    calls.write_text("")
    done = subprocess.run(
        [
            "schemathesis", "--config-file", str(config), "run", str(schema), "--url", url,
            "--header", f"Authorization: Bearer {token}", "--max-examples", str(examples),
            "--continue-on-failure", "--no-color", *more,
        ],
        check=False,
        capture_output=True,
        text=True,
        cwd=folder,
        env={
            **os.environ,
            "SCHEMATHESIS_HOOKS": "harness.judge_hooks",
            "PYTHONPATH": str(Path(__file__).parents[1]),
            "MOTTE_JUDGE_CALLS": str(calls),
        },
    )  # fmt: skip
    lines = [json.loads(line) for line in calls.read_text(encoding="utf-8").splitlines()]
    counted = Counter((method, label, status) for method, label, status in lines)
    return Verdict(done.returncode == 0, done.stdout + done.stderr, counted)
