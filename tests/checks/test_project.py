"""CI definitions and decisions: what they name exists."""

import json
import os
import re
from pathlib import Path

import pytest
import yaml
from openapi_spec_validator import validate

from checks import tree

DECISIONS = sorted((tree.ROOT / "docs" / "decisions").glob("[0-9]*.md"))


def test_R35_only_programs_log() -> None:
    """Libraries return errors, or tell whoever asked them to (priv_config.tell)."""
    programs = {"base", "server", "motted", "admin", "guest"}
    said = re.compile(r"\blog_(error|warn|info|debug|write)\(")
    found = [
        f"{tree.relative(path)}:{number}"
        for path in tree.sources()
        if path.relative_to(tree.ROOT).parts[0] in set(tree.FOLDERS) - programs
        for number, line in tree.lines(path)
        if said.search(line)
    ]
    assert not found, found


def test_R39_ci_run_calls_the_one_test_script() -> None:
    script = tree.ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert "tests/run.sh" in script.read_text(encoding="utf-8")
    assert os.access(tree.ROOT / "tests" / "run.sh", os.X_OK)


def test_R39_the_workflow_calls_ci_run() -> None:
    path = tree.ROOT / ".github" / "workflows" / "ci.yml"
    workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert workflow["jobs"], "a workflow without jobs does nothing"
    triggers = workflow.get("on", workflow.get(True))  # YAML 1.1 reads `on` as true
    assert {"push", "pull_request"} <= set(triggers)
    for job in workflow["jobs"].values():
        assert job["runs-on"]
        steps = job["steps"]
        assert all(("run" in step) != ("uses" in step) for step in steps)
        assert any(".ci/run" in step.get("run", "") for step in steps)


def test_R01_openapi_yaml_is_valid_openapi() -> None:
    validate(yaml.safe_load((tree.ROOT / "openapi.yaml").read_text(encoding="utf-8")))


def test_R39_every_configuration_key_is_documented() -> None:
    """deploy/systemd/motted.conf and motted's options are the same list."""
    options = (tree.ROOT / "motted" / "options.c").read_text(encoding="utf-8")
    keys = set(re.findall(r'^    \{"([a-z-]+)", [A-Z]+,', options, re.M))
    example = (tree.ROOT / "deploy" / "systemd" / "motted.conf").read_text(encoding="utf-8")
    assert keys
    assert set(re.findall(r"^#([a-z-]+) = ", example, re.M)) == keys


def test_R39_the_way_of_a_request_is_where_readme_says() -> None:
    """Four hops that share a noun: route, handler, engine, steps."""
    chain = ["server/main.c", "api/routes.c", "api/vms.c", "vmm/spawn.c", "vmm/steps.c"]
    written = " → ".join(f"`{name}`" for name in chain)
    for name in ("README.md", "CONTRIBUTING.md"):
        assert written in (tree.ROOT / name).read_text(encoding="utf-8"), name

    def text(name: str) -> str:
        return (tree.ROOT / name).read_text(encoding="utf-8")

    assert re.search(r'\{"POST",\s+"/vms",\s+api_vm_create,', text("api/routes.c"))
    assert re.search(r"^int api_vm_create\(", text("api/vms.c"), re.M)
    assert "vmm_spawn" in text("api/vms.c")
    assert re.search(r"^int vmm_spawn\(", text("vmm/spawn.c"), re.M)
    assert "vmm_steps" in text("vmm/spawn.c")
    assert re.search(r"vmm_steps\[.*\] = \{", text("vmm/steps.c"))


def test_R39_readme_names_only_files_that_are_there() -> None:
    for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md"):
        said = (tree.ROOT / name).read_text(encoding="utf-8")
        for path in re.findall(r"`([\w.-]+/[\w./-]*)`", said):
            assert (tree.ROOT / path).exists(), f"{name} names {path}"


def test_R37_every_fuzz_target_is_built_and_has_a_corpus() -> None:
    folder = tree.ROOT / "tests" / "fuzz"
    targets = {path.stem.removeprefix("fuzz_") for path in folder.glob("fuzz_*.c")}
    assert len(targets) >= 9
    lines = (folder / "CMakeLists.txt").read_text(encoding="utf-8")
    assert set(re.findall(r"^motte_fuzz\((\w+)", lines, re.M)) == targets
    for target in targets:
        assert len(list((folder / "corpus" / target).iterdir())) >= 3, target
    assert {path.name for path in (folder / "corpus").iterdir()} == targets


def known_tests() -> set[str]:
    """The names that requirements_report.py can see pass."""
    listed = tree.run("ctest", "--test-dir", tree.programs_folder(), "--show-only=json-v1")
    names = {str(test["name"]) for test in json.loads(listed.stdout)["tests"]}
    for path in tree.files(".c", ".py"):
        if tree.relative(path).startswith(tree.TESTS):
            text = path.read_text(encoding="utf-8")
            names |= set(re.findall(r"^Test\(\s*\w+,\s*(\w+)", text, re.M))
            names |= set(re.findall(r"^\s*def (test_\w+)", text, re.M))
    return names


def test_R40_there_are_decisions() -> None:
    assert DECISIONS


@pytest.mark.parametrize("path", DECISIONS, ids=[path.stem for path in DECISIONS])
def test_R40_a_decision_names_the_test_that_holds_it(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    held = re.findall(r"^Held by:\s*(.+)$", text, re.M)
    assert held, f"{tree.relative(path)} has no line `Held by: <test or check>`"
    known = known_tests()
    names = [word.strip(" `.") for line in held for word in re.split(r",| and ", line)]
    missing = [name for name in names if name and name not in known]
    assert not missing, f"{tree.relative(path)} names what does not exist: {missing}"
