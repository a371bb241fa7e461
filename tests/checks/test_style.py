"""Formatting, lint, sizes: what a machine can say about style."""

import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from checks import tree

FILE_LINES_MAX = 500
FUNCTION_LINES_MAX = 70
COMPLEXITY_MAX = 15


def said(done: CompletedProcess[str]) -> str:
    return (done.stdout + done.stderr).strip()


def test_R35_c_is_formatted() -> None:
    done = tree.run("clang-format-14", "--dry-run", "-Werror", *tree.sources())
    assert done.returncode == 0, said(done)[-4000:]


def test_R35_python_is_formatted_linted_and_typed() -> None:
    config = tree.ROOT / "tests" / "pyproject.toml"
    commands: list[tuple[str | Path, ...]] = [
        ("ruff", "format", "--config", config, "--check", ".", "../bench", "../python"),
        ("ruff", "check", "--config", config, ".", "../bench", "../python"),
        ("mypy", "--config-file", config, ".", "../bench"),
        ("mypy", "--config-file", config, "../python"),  # its conftest is no other's
    ]
    for argv in commands:
        done = tree.run(*argv, cwd=tree.ROOT / "tests")
        assert done.returncode == 0, said(done)[-4000:]


def test_R35_shell_scripts_pass_shellcheck() -> None:
    done = tree.run("shellcheck", *tree.scripts())
    assert done.returncode == 0, said(done)[-4000:]


def tidy(path: Path) -> str:
    done = tree.run(
        "clang-tidy-14",
        "--quiet",
        "-p",
        tree.programs_folder(),
        # gcc's -Wformat-truncation judges snprintf into fixed buffers, call by call. The analyzer
        # cannot see that error_set() returns -1, takes its callers to go on, and needs minutes.
        # Warnings are gcc's business, which compiles with -Werror.
        "--checks=-cert-err33-c,-clang-analyzer-*,-clang-diagnostic-*",
        "--extra-arg=-w",
        path,
    )
    found = [line for line in done.stdout.splitlines() if re.search(r": (error|warning): ", line)]
    return "\n".join(found)


def test_R35_clang_tidy_finds_nothing() -> None:
    """Only what is compiled: tests and the test guest have looser rules."""
    paths = [p for p in tree.files(".c") if tree.relative(p).split("/")[0] in tree.FOLDERS]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = [words for words in pool.map(tidy, paths) if words]
    assert not found, "\n".join(found)[-6000:]


def test_R35_files_are_short() -> None:
    kinds = tree.files(".c", ".h", ".py", ".sh")
    long = {tree.relative(path): sum(1 for _ in tree.lines(path)) for path in kinds}
    assert {name: count for name, count in long.items() if count > FILE_LINES_MAX} == {}


def test_R35_functions_are_short_and_simple() -> None:
    """pmccabe: complexity, …, lines, place."""
    done = tree.run("pmccabe", *tree.files(".c"))
    assert done.returncode == 0, done.stderr
    bad = []
    for line in done.stdout.splitlines():
        fields = line.split("\t")
        if int(fields[0]) > COMPLEXITY_MAX or int(fields[4]) > FUNCTION_LINES_MAX:
            bad.append(line)
    assert len(done.stdout.splitlines()) > 500, "pmccabe saw the tree"
    assert not bad, "\n".join(bad)


FORBIDDEN = [
    (re.compile(r"\b(TODO|FIXME|XXX)\b"), "left for later"),
    (re.compile(r"^\s*//|[;{}]\s*// "), "a // comment"),
    (re.compile(r"\btypedef\s+(struct|union|enum)\b"), "a typedef of a struct"),
]


@pytest.mark.parametrize(("pattern", "what"), FORBIDDEN, ids=[what for _, what in FORBIDDEN])
def test_R35_c_is_free_of(pattern: re.Pattern[str], what: str) -> None:
    found = [
        f"{tree.relative(path)}:{number}: {line.strip()}"
        for path in tree.sources()
        for number, line in tree.lines(path)
        if pattern.search(line)
    ]
    assert not found, f"{what}:\n" + "\n".join(found)


def test_R36_no_test_sleeps_for_a_result() -> None:
    """A pause between two looks at an event with a deadline is written 0.01 to 0.1."""
    nap = re.compile(r"\b(sleep|usleep)\s*\(\s*(\d[\d.']*)")
    found = []
    for path in tree.files(".c", ".py"):
        if not tree.relative(path).startswith(tree.TESTS):
            continue
        for number, line in tree.lines(path):
            match = nap.search(line)
            if match is None:
                continue
            seconds = float(match[2].rstrip(".")) / (1e6 if match[1] == "usleep" else 1)
            if seconds > 0.1:
                found.append(f"{tree.relative(path)}:{number}: {line.strip()}")
    assert not found, "\n".join(found)
