#!/usr/bin/env python3
"""Takes each guard away in turn and expects the named test to fail.

Usage: run.py [NAME...]      all of mutations.toml, or these; from the tree that is to be judged

Works in a copy in $MOTTE_MUTANTS (default /tmp/motte-mutants), which it keeps for the next run.
As root, with the tests' own PATH (build/venv/bin, build/tools). Those that only the nested host can
see go into one such host together, which `tests/run.sh nested` must have built. Ends with 1 if a
mutant survived.
"""

import os
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
WORK = Path(os.environ.get("MOTTE_MUTANTS", "/tmp/motte-mutants"))
TREE = WORK / "tree"
BUILD = TREE / "build" / "dev"
PROGRAMS = ["motted", "motte-front", "motte-admin", "testguest"]
PATIENCE_S = 300  # a mutant may hang: that is no proof, and no reason to wait for ever
NESTED = "nested"  # the backend of mutants that go into the nested host
NESTED_S = 3 * 1100  # tests/nested/run.sh has limits of its own


NO_COMPILE = "NO PROOF: it does not compile"
NO_SOUND = "NO PROOF: the test fails without the change too"


@dataclass(frozen=True)
class Mutation:
    name: str
    edits: tuple[tuple[str, str, str], ...]  # file, old, new
    everywhere: bool
    unit: str | None
    test: str
    backend: str

    @property
    def aim(self) -> tuple[str | None, str, str]:
        return self.unit, self.test, self.backend


def load(path: Path = HERE / "mutations.toml") -> list[Mutation]:
    entries = tomllib.loads(path.read_text(encoding="utf-8"))
    return [
        Mutation(
            name,
            ((entry["file"], entry["old"], entry["new"]), *map(tuple, entry.get("also", []))),
            entry.get("all", False),
            entry.get("unit"),
            entry["test"],
            entry.get("only", "firecracker"),
        )
        for name, entry in entries.items()
    ]


def mutated(mutation: Mutation, root: Path) -> dict[Path, str]:
    """The new text of each file; ValueError if the change does not fit any more."""
    texts: dict[Path, str] = {}
    for file, old, new in mutation.edits:
        path = root / file
        text = texts.get(path) or path.read_text(encoding="utf-8")
        found = text.count(old)
        if found == 0 or (found > 1 and not mutation.everywhere):
            raise ValueError(f"{mutation.name}: {file} has the old text {found} times")
        texts[path] = text.replace(old, new)
    return texts


def alone() -> list[str]:
    """A mutant's test dies where it stands: with its pid namespace go the processes that it leaves,
    with its mount namespace what a launcher without one of its own has mounted, or made the root.
    A pid like no other's, because cgroups that it leaves bear that in their names."""
    pid = str(2000 + time.monotonic_ns() // 1_000_000 % 30_000)
    script = 'echo "$0" >/proc/sys/kernel/ns_last_pid; "$@"; exit $?'
    return [
        *("unshare", "--mount", "--propagation", "private"),
        *("--pid", "--fork", "--kill-child", "--mount-proc"),
        *("sh", "-c", script, pid),
    ]


def run(argv: list[str], log: Path, patience: float = PATIENCE_S, **env: str) -> bool:
    with log.open("wb") as out:
        try:
            done = subprocess.run(
                argv,
                check=False,
                cwd=TREE,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                timeout=patience,
                env={**os.environ, **env},
            )
        except subprocess.TimeoutExpired:
            out.write(b"\nrun.py: out of patience\n")
            return False
    return done.returncode == 0


def copy_tree() -> None:
    TREE.mkdir(parents=True, exist_ok=True)
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    for name in filter(None, listed.split("\0")):
        source, target = ROOT / name, TREE / name
        if not source.is_file():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.is_file() or source.read_bytes() != target.read_bytes():
            shutil.copy(source, target)


def build(mutation: Mutation) -> bool:
    """What its test needs, and no more."""
    jobs = os.environ.get("MOTTE_JOBS", str(os.cpu_count()))
    needed = [Path(mutation.unit).name] if mutation.unit else PROGRAMS
    return run(["ninja", "-C", str(BUILD), "-j", jobs, *needed], WORK / "build.log")


def test_passes(mutation: Mutation, log: Path) -> bool:
    unit, test, backend = mutation.aim
    if unit is not None:
        program = BUILD / "tests" / "unit" / unit
        return run([*alone(), str(program), "--filter", f"*/*{test}*"], log)
    words = ["pytest", "-c", "tests/pyproject.toml", "-p", "no:cacheprovider", "-x", "-q"]
    return run(
        [*alone(), *words, "-k", test, "tests/system"],
        log,
        MOTTE_BUILD=str(BUILD),
        MOTTE_BACKEND=backend,
    )


@contextmanager
def built(mutation: Mutation) -> Iterator[bool]:
    """Does it compile? The tree is as before afterwards."""
    texts = mutated(mutation, TREE)
    before = {path: path.read_text(encoding="utf-8") for path in texts}
    try:
        for path, text in texts.items():
            path.write_text(text, encoding="utf-8")
        compiles = build(mutation)
        if not compiles:
            shutil.copy(WORK / "build.log", WORK / f"{mutation.name}.log")
        yield compiles
    finally:
        for path, text in before.items():
            path.write_text(text, encoding="utf-8")


def judge(mutation: Mutation) -> str:
    with built(mutation) as compiles:
        if not compiles:
            return NO_COMPILE
        return "SURVIVED" if test_passes(mutation, WORK / f"{mutation.name}.log") else "killed"


def unsound(mutations: list[Mutation]) -> set[tuple[str | None, str, str]]:
    """Tests that fail without any change: what they say of a mutant is worth nothing."""
    found = set()
    for mutation in {one.aim: one for one in mutations}.values():
        if not build(mutation) or not test_passes(mutation, WORK / "sound.log"):
            found.add(mutation.aim)
            shutil.copy(WORK / "sound.log", WORK / f"sound-{mutation.name}.log")
    return found


def pack(folder: Path, test: str) -> None:
    """What tests/nested/inside.sh takes for a mutant: programs and a test."""
    shutil.copytree(BUILD / "bin", folder / "bin")
    (folder / "test").write_text(f"{test}\n", encoding="utf-8")


def judge_nested(mutations: list[Mutation]) -> dict[str, str]:
    """All of them in one nested host, with the programs as they are for each test."""
    mutants, results = WORK / "nested", WORK / "nested-results"
    verdicts = {}
    for folder in (mutants, results):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    for mutation in {one.aim: one for one in mutations}.values():
        if build(mutation):
            pack(mutants / f"sound-{mutation.test}", mutation.test)
    for mutation in mutations:
        with built(mutation) as compiles:
            if compiles:
                pack(mutants / mutation.name, mutation.test)
            else:
                verdicts[mutation.name] = NO_COMPILE
    host = [ROOT / "tests" / "nested" / "run.sh", ROOT / "build" / "nested", results, mutants]
    run([str(word) for word in host], WORK / "nested.log", NESTED_S)

    def passed(name: str) -> bool | None:
        path = results / "mutants" / name
        return path.read_text(encoding="utf-8") == "passed\n" if path.exists() else None

    for mutation in mutations:
        verdict = {True: "SURVIVED", False: "killed", None: f"NO PROOF: see {WORK}/nested.log"}
        sound = passed(f"sound-{mutation.test}")
        verdicts.setdefault(
            mutation.name, NO_SOUND if sound is False else verdict[sound and passed(mutation.name)]
        )
    return verdicts


def main(names: list[str]) -> int:
    mutations = [one for one in load() if not names or one.name in names]
    if len(mutations) < len(set(names)) or not mutations:
        print(f"run.py: no such mutation among {names}", file=sys.stderr)
        return 2
    copy_tree()
    # Warnings are no errors here: a removed guard leaves unused names behind.
    configure = ["cmake", "--preset", "dev", "-DMOTTE_WERROR=OFF"]
    if not run(configure, WORK / "configure.log"):
        print(f"run.py: the tree cannot be configured: see {WORK}", file=sys.stderr)
        return 2
    here = [one for one in mutations if one.backend != NESTED]
    broken = unsound(here)
    verdicts = {}
    for mutation in here:
        verdicts[mutation.name] = NO_SOUND if mutation.aim in broken else judge(mutation)
        print(f"{mutation.name:34} {verdicts[mutation.name]}", flush=True)
    nested = [one for one in mutations if one.backend == NESTED]
    for name, verdict in judge_nested(nested).items() if nested else ():
        verdicts[name] = verdict
        print(f"{name:34} {verdict}", flush=True)
    killed = list(verdicts.values()).count("killed")
    print(f"{killed} of {len(mutations)} killed")
    return 0 if killed == len(mutations) else 1


if __name__ == "__main__":
    if sys.argv[1:2] == ["--help"]:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1:]))
