"""What the package says about openapi.yaml is what openapi.yaml says."""

import dataclasses
import re
from pathlib import Path
from typing import Any, get_type_hints

import pytest

import make_sync
import motte
from harness.contract import Contract
from motte import call, calls, exec_calls, parse, problems
from motte.models import InputState

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "python" / "motte"

# Operations that the client leaves to others.
NOT_OURS = {
    "getHealth": "who watches the host",
    "getReadiness": "who watches the host",
    "getMetrics": "Prometheus",
    "getCordon": "operators, who have curl",
    "cordon": "operators",
    "uncordon": "operators",
    "drain": "operators",
    "getContract": "who makes clients",
    "listCalls": "operators",
}
SCHEMAS: list[tuple[type, str]] = [
    (motte.VmInfo, "Vm"),
    (motte.Certificate, "Certificate"),
    (motte.Outputs, "Outputs"),
    (motte.ExecInfo, "Exec"),
    (InputState, "ExecInputState"),
    (motte.Snapshot, "Snapshot"),
    (motte.VmStats, "VmStats"),
    (motte.WrittenFile, "WrittenFile"),
    (motte.FileEntry, "FileEntry"),
    (motte.UnpackedArchive, "UnpackedArchive"),
    (motte.Image, "Image"),
    (motte.Capabilities, "Capabilities"),
    (motte.IsolationReport, "IsolationReport"),
    (motte.IsolationLine, "IsolationLine"),
    (motte.AuditEntry, "AuditEntry"),
]


def operations(contract: Contract) -> dict[str, tuple[str, str]]:
    paths = contract.document["paths"]
    return {
        paths[path][method.lower()]["operationId"]: (method, path)
        for method, path in contract.operations()
    }


def test_R01_every_operation_has_a_call_or_is_left_to_others(contract: Contract) -> None:
    there = operations(contract)
    assert not set(call.ROUTES) & set(NOT_OURS)
    assert set(there) == set(call.ROUTES) | set(NOT_OURS), "add a call, or a line to NOT_OURS"
    assert {name: there[name] for name in call.ROUTES} == call.ROUTES
    text = "".join(path.read_text(encoding="utf-8") for path in PACKAGE.glob("*calls.py"))
    made = re.findall(r'Call\(\s*"(\w+)"', text)
    assert set(made) == set(call.ROUTES), "each route is called by something"


def test_R01_every_code_of_a_problem_has_one_class() -> None:
    codes = [code for kind in problems.KINDS for code in kind.codes]
    assert len(codes) == len(set(codes))
    header = (ROOT / "base" / "base.h").read_text(encoding="utf-8")
    catalogue = set(re.findall(r'^ +X\([A-Z_]+, "([a-z_]+)"\)', header, re.M))
    assert len(catalogue) > 60
    assert set(codes) == catalogue, "put a new code into one of the classes of problems.py"


@pytest.mark.parametrize(("kind", "schema"), SCHEMAS, ids=[name for _, name in SCHEMAS])
def test_R01_a_model_has_the_fields_of_its_schema(
    contract: Contract, kind: Any, schema: str
) -> None:
    told = contract.document["components"]["schemas"][schema]
    fields = {
        field.name for field in dataclasses.fields(kind) if field.default is dataclasses.MISSING
    }
    assert fields == set(told["required"])
    assert {field.name for field in dataclasses.fields(kind)} - fields <= set(told["properties"])


@pytest.mark.parametrize(
    ("options", "schema"), [(calls.VmOptions, "VmSpec"), (calls.ForkOptions, "ForkSpec")]
)
def test_R08_options_are_the_fields_of_a_body(
    contract: Contract, options: Any, schema: str
) -> None:
    named = set(contract.document["components"]["schemas"][schema]["properties"])
    assert set(options.__annotations__) == named - {"enable_networking"}


@pytest.mark.parametrize(
    ("options", "schema"),
    [(calls.ExecOptions, "ExecRequest"), (exec_calls.ExecSpec, "ExecSpec")],
)
def test_R27_options_of_a_command_are_those_of_an_exec(
    contract: Contract, options: Any, schema: str
) -> None:
    named = set(contract.document["components"]["schemas"][schema]["properties"])
    assert set(get_type_hints(options)) == named - {"argv", "shell"}


def test_R02_posts_have_a_key_where_they_take_one(contract: Contract) -> None:
    paths, key = contract.document["paths"], {"$ref": "#/components/parameters/IdempotencyKey"}
    keyed = {
        name
        for name, (method, path) in call.ROUTES.items()
        if key in paths[path][method.lower()].get("parameters", [])
    }
    posts = {name for name, (method, _) in call.ROUTES.items() if method == "POST"}
    assert keyed == posts, "each POST is sent again where its answer is lost"


def test_R35_the_waiting_client_is_made_from_the_other() -> None:
    made = make_sync.all_made()
    there = {
        path.name: path.read_text(encoding="utf-8") for path in (PACKAGE / "sync").glob("*.py")
    }
    assert there == made, "run python/make_sync.py"


IMAGE = {
    "name": "a",
    "digest": "sha256:0",
    "size_bytes": 1,
    "kernel": "k",
    "created_at": "2026-11-27T06:00:00.000Z",
}


def test_R01_fields_of_a_newer_service_are_ignored() -> None:
    assert parse.parse(motte.Image, {**IMAGE, "colour": "red"}).name == "a"


@pytest.mark.parametrize("name", IMAGE)
@pytest.mark.parametrize("wrong", [None, True, [], {}, "MISSING"])
def test_R01_a_field_that_is_not_as_it_must_be_is_named(name: str, wrong: object) -> None:
    told = {key: IMAGE[key] for key in IMAGE if key != name}
    with pytest.raises(motte.BadAnswer, match=rf"\b{name}\b"):
        parse.parse(motte.Image, told if wrong == "MISSING" else {**told, name: wrong})


def test_R01_a_code_that_is_not_known_is_judged_by_its_status() -> None:
    def kind(status: int) -> type:
        return type(problems.error_of(motte.Problem("new", status, "New", "d", "r", "0")))

    assert [kind(status) for status in (400, 401, 404, 409, 422, 429, 500, 503, 507)] == [
        motte.InvalidRequest, motte.NotAllowed, motte.NotFound, motte.Conflict,
        motte.InvalidRequest, motte.Unavailable, motte.HostError, motte.Unavailable,
        motte.HostError,
    ]  # fmt: skip
