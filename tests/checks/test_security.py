"""What docs/security.md, failures.md and complaints.md claim has a test, and each guard's removal
is on the list of mutations."""

import re

import pytest

from checks import tree
from checks.test_project import known_tests
from mutations import run as mutants

DOCUMENTS = ("security.md", "failures.md", "complaints.md")
MUTATIONS = mutants.load()


def named_tests(text: str) -> set[str]:
    """Names of tests: a requirement's number, or three words and more joined by underscores."""
    words = set(re.findall(r"(?<![\w/`.{])(\w+)(?![\w/`.])", text))
    return {word for word in words if re.match(r"(test_)?R\d\d_", word) or word.count("_") >= 3}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_R40_a_document_names_tests_that_exist(name: str) -> None:
    names = named_tests((tree.ROOT / "docs" / name).read_text(encoding="utf-8"))
    assert len(names) > 40, names
    assert sorted(names - known_tests()) == []


@pytest.mark.parametrize("mutation", MUTATIONS, ids=[one.name for one in MUTATIONS])
def test_R36_a_mutation_fits_the_tree_and_names_a_test(mutation: mutants.Mutation) -> None:
    for path, text in mutants.mutated(mutation, tree.ROOT).items():
        assert text != path.read_text(encoding="utf-8")
    if mutation.unit is None:
        places = (tree.ROOT / "tests" / "system").glob("test_*.py")
    else:
        folder, program = mutation.unit.split("/")
        stem = re.sub(r"^R\d\d_", "", program.removeprefix(f"test_{folder}_"))
        places = (tree.ROOT / "tests" / "unit" / folder).glob(f"test_{stem}.c")
    text = "\n".join(path.read_text(encoding="utf-8") for path in places)
    assert re.search(rf"\b{re.escape(mutation.test)}\b", text), f"no {mutation.test}"
