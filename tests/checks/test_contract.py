"""openapi.yaml and the catalogue of errors: what one says the other has, and tests produce it."""

import re
from typing import Any

import pytest
import yaml

from checks import tree

STRING = r'"(?:[^"\\]|\\.)*"'
ENTRY = re.compile(
    rf"\[ERR_(\w+)\]\s*=\s*\{{\s*(\d+),\s*({STRING}),\s*((?:{STRING}\s*)+|[A-Z]+),\s*\d+,?\s*\}}"
)
CODES = dict(re.findall(r'X\(([A-Z_]+), "(\w+)"\)', (tree.ROOT / "base" / "base.h").read_text()))


def text_of(strings: str) -> str:
    return "".join(re.findall(r'"([^"]*)"', strings))


def catalogue() -> dict[str, tuple[int, str, str]]:
    """Status, title and remediation of each code, as api/problem.c has them."""
    source = (tree.ROOT / "api" / "problem.c").read_text(encoding="utf-8")
    macros = dict(re.findall(rf"^#define (\w+) ({STRING})$", source, re.M))
    return {
        CODES[name]: (int(status), text_of(title), text_of(macros.get(advice.strip(), advice)))
        for name, status, title, advice in ENTRY.findall(source)
    }


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    text = (tree.ROOT / "openapi.yaml").read_text(encoding="utf-8")
    loaded: dict[str, Any] = yaml.safe_load(text)
    return loaded


def test_R01_an_outside_linter_finds_nothing_in_openapi_yaml() -> None:
    linter = tree.ROOT / "build" / "npm" / "node_modules" / ".bin" / "redocly"
    assert linter.exists(), "tests/run.sh installs it (make_npm)"
    config = tree.ROOT / "tests" / "redocly.yaml"
    done = tree.run(linter, "lint", "--config", config, tree.ROOT / "openapi.yaml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_R01_every_error_code_has_an_example(document: dict[str, Any]) -> None:
    """In components/responses/Problem, in the words of api/problem.c."""
    known = catalogue()
    assert set(known) == set(CODES.values())
    problem = document["components"]["responses"]["Problem"]
    examples = problem["content"]["application/problem+json"]["examples"]
    assert list(examples) == list(CODES.values()), "one example each, in the order of base/base.h"
    for code, (status, title, remediation) in known.items():
        value = examples[code]["value"]
        assert value.pop("detail"), code
        assert value.pop("request_id"), code
        assert value == {
            "type": f"urn:motte:error:{code}",
            "title": title,
            "status": status,
            "code": code,
            "remediation": remediation,
        }


def test_R01_every_error_code_is_produced_by_a_test() -> None:
    """As far as names tell: a system test names the code, or a unit test its constant."""
    system = "\n".join(p.read_text() for p in (tree.ROOT / "tests" / "system").rglob("*.py"))
    unit = "\n".join(p.read_text() for p in (tree.ROOT / "tests" / "unit").rglob("*.[ch]"))
    missing = [
        code
        for name, code in CODES.items()
        if f'"{code}"' not in system and not re.search(rf"\bERR_{name}\b", unit)
    ]
    assert missing == []


def test_R01_no_test_names_a_code_that_is_not_there() -> None:
    for path in (tree.ROOT / "tests" / "system").rglob("*.py"):
        named = re.findall(r'\.problem\(\s*\d+,\s*"(\w+)"', path.read_text(encoding="utf-8"))
        assert set(named) <= set(CODES.values()), tree.relative(path)
