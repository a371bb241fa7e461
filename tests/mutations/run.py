#!/usr/bin/env python3
"""Takes each guard away in turn and expects the named test to fail.

Usage: run.py [NAME...]      all of mutations.toml, or these; from the tree that is to be judged

Works in a copy in $MOTTE_MUTANTS (default /tmp/motte-mutants), which it keeps for the next run.
As root, with the tests' own PATH (build/venv/bin, build/tools). Ends with 1 if a mutant survived.
"""

import os
import shutil
import subprocess
import sys
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
WORK = Path(os.environ.get("MOTTE_MUTANTS", "/tmp/motte-mutants"))
TREE = WORK / "tree"
BUILD = TREE / "build" / "dev"
PATIENCE_S = 300  # a mutant may hang: that is no proof, and no reason to wait for ever


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


def run(argv: list[str], log: Path, **env: str) -> bool:
    with log.open("wb") as out:
        try:
            done = subprocess.run(
                argv,
                check=False,
                cwd=TREE,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                timeout=PATIENCE_S,
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


def build() -> bool:
    jobs = os.environ.get("MOTTE_JOBS", str(os.cpu_count()))
    return run(["ninja", "-C", str(BUILD), "-j", jobs], WORK / "build.log")


def test_passes(mutation: Mutation, log: Path) -> bool:
    unit, test, backend = mutation.aim
    if unit is not None:
        program = BUILD / "tests" / "unit" / unit
        return run([str(program), "--filter", f"*/*{test}*"], log)
    words = ["pytest", "-c", "tests/pyproject.toml", "-p", "no:cacheprovider", "-x", "-q"]
    return run(
        [*words, "-k", test, "tests/system"], log, MOTTE_BUILD=str(BUILD), MOTTE_BACKEND=backend
    )


def judge(mutation: Mutation, sound: dict[tuple[str | None, str, str], bool]) -> str:
    log = WORK / f"{mutation.name}.log"
    if mutation.aim not in sound:
        sound[mutation.aim] = test_passes(mutation, WORK / "sound.log")
    if not sound[mutation.aim]:
        return "NO PROOF: the test fails without the change too"
    texts = mutated(mutation, TREE)
    before = {path: path.read_text(encoding="utf-8") for path in texts}
    try:
        for path, text in texts.items():
            path.write_text(text, encoding="utf-8")
        if not build():
            shutil.copy(WORK / "build.log", log)
            return "NO PROOF: it does not compile"
        return "SURVIVED" if test_passes(mutation, log) else "killed"
    finally:
        for path, text in before.items():
            path.write_text(text, encoding="utf-8")
        build()


def main(names: list[str]) -> int:
    mutations = [one for one in load() if not names or one.name in names]
    if len(mutations) < len(set(names)) or not mutations:
        print(f"run.py: no such mutation among {names}", file=sys.stderr)
        return 2
    copy_tree()
    # Warnings are no errors here: a removed guard leaves unused names behind.
    configure = ["cmake", "--preset", "dev", "-DMOTTE_WERROR=OFF"]
    if not run(configure, WORK / "configure.log") or not build():
        print(f"run.py: the tree does not build: see {WORK}", file=sys.stderr)
        return 2
    sound: dict[tuple[str | None, str, str], bool] = {}
    bad = []
    for mutation in mutations:
        began = time.monotonic()
        verdict = judge(mutation, sound)
        print(f"{mutation.name:34} {verdict} ({time.monotonic() - began:.1f} s)", flush=True)
        if verdict != "killed":
            bad.append(mutation.name)
    print(f"{len(mutations) - len(bad)} of {len(mutations)} killed")
    return 1 if bad else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--help"]:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1:]))
