"""Of R01 to R41: which hold, by the tests that carry their numbers in their names.

Usage: requirements_report.py FOLDER_OF_JUNIT_FILES [--all]

A requirement passed if a test that names it passed and none failed; skipped tests show nothing. A
decision in docs/decisions holds if each test of its `Held by:` line passed, a claim of
docs/security.md, failures.md or complaints.md if the test that it names did. Exit status 0 if
nothing failed; with --all (every stage ran) only if every decision and claim holds too.
"""

import re
import sys
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

NUMBERS = [f"R{number:02}" for number in range(1, 42)]
WHY_MAX = 1500
NUMBER = re.compile(r"(?<![A-Za-z0-9])R(\d{2})(?!\d)")


@dataclass
class Tally:
    passed: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    programs: list[str] = field(default_factory=list)  # whole test programs that passed
    why: dict[str, str] = field(default_factory=dict)  # of those that failed


def outcome(case: ElementTree.Element) -> str:
    if case.find("failure") is not None or case.find("error") is not None:
        return "failed"
    status = case.get("status", "").lower()
    if case.find("skipped") is not None or status in ("notrun", "disabled", "skipped"):
        return "skipped"
    return "failed" if status in ("fail", "failed", "errored") else "passed"


def reason(case: ElementTree.Element) -> str:
    """In the words of what failed, on one line."""
    found = [case.find(kind) for kind in ("failure", "error")]
    said = " ".join(at.get("message", "") or at.text or "" for at in found if at is not None)
    return " ".join(said.split())[:WHY_MAX]


def read(folder: Path) -> tuple[dict[str, Tally], Tally]:
    by_number: dict[str, Tally] = defaultdict(Tally)
    total = Tally()
    for path in sorted(folder.glob("*.xml")):
        criterion = not path.name.startswith("ctest-")
        for case in ElementTree.parse(path).iter("testcase"):
            name = f"{path.stem}: {case.get('classname', '')} {case.get('name', '')}"
            what = outcome(case)
            if what == "failed":
                total.why[name] = reason(case)
            # ctest counts whole programs, whose tests Criterion reports one by one.
            if criterion or not case.get("name", "").startswith("test_"):
                getattr(total, what).append(name)
            elif what == "passed":
                total.programs.append(name)
            for number in set(NUMBER.findall(case.get("name", ""))):
                getattr(by_number[f"R{number}"], what).append(name)
    return by_number, total


def bare_names(total: Tally) -> set[str]:
    """Without a test's parameters, which may have spaces."""
    return {re.split(r"[\s:]+", name.split("[")[0])[-1] for name in total.passed + total.programs}


def claims_not_shown(total: Tally) -> list[str]:
    """Tests that the documents name and that did not pass in this run: a requirement's number, or
    three underscores and more. (That such a name is a test's is a check's business.)"""
    lost = []
    for document in ("security.md", "failures.md", "complaints.md"):
        path = Path(__file__).parents[1] / "docs" / document
        text = path.read_text(encoding="utf-8")
        words = set(re.findall(r"(?<![\w/`.{])(\w+)(?![\w/`.])", text))
        names = {w for w in words if re.match(r"(test_)?R\d\d_", w) or w.count("_") >= 3}
        lost += [f"{document}: {name}" for name in sorted(names - bare_names(total))]
    return lost


def decisions_not_held(total: Tally) -> list[str]:
    """Decisions whose named test did not pass in this run."""
    passed = bare_names(total)
    lost = []
    for path in sorted((Path(__file__).parents[1] / "docs" / "decisions").glob("*.md")):
        for line in re.findall(r"^Held by:\s*(.+)$", path.read_text(encoding="utf-8"), re.M):
            names = [word.strip(" `.") for word in re.split(r",| and ", line)]
            lost += [f"{path.stem}: {name}" for name in names if name and name not in passed]
    return lost


def counted(folder: Path) -> dict[str, int]:
    """What tests say they did how often, added up: record_property("counted: …", number), or a line
    `counted: NUMBER …` that a test program prints."""
    sums: dict[str, int] = defaultdict(int)
    for path in sorted(folder.glob("*.xml")):
        tree = ElementTree.parse(path)
        for one in tree.iter("property"):
            kind, _, what = one.get("name", "").partition(": ")
            if kind == "counted":
                sums[what] += int(one.get("value", "0"))
        for said in tree.iter("system-out"):
            for number, what in re.findall(r"^counted: (\d+) (.+)$", said.text or "", re.M):
                sums[what] += int(number)
    return sums


def main(folder: Path, everything: bool) -> int:
    by_number, total = read(folder)
    passed = [n for n in NUMBERS if by_number[n].passed and not by_number[n].failed]
    failed = [n for n in NUMBERS if by_number[n].failed]
    unseen = [n for n in NUMBERS if not by_number[n].passed and not by_number[n].failed]
    print(f"passed    ({len(passed)}): {' '.join(passed)}")
    print(f"failed    ({len(failed)}): {' '.join(failed)}")
    print(f"not shown ({len(unseen)}): {' '.join(unseen)}")
    for name in total.failed:
        print(f"  FAILED  {name}: {total.why[name]}")
    for name in total.skipped:
        print(f"  skipped {name}")
    lost = decisions_not_held(total) + claims_not_shown(total) if everything else []
    for claim in lost:
        print(f"  claim without a passed test: {claim}")
    for what, number in counted(folder).items():
        print(f"counted: {number} {what}")
    print(f"{len(total.passed)} passed, {len(total.failed)} failed")
    return 1 if total.failed or not total.passed or lost else 0


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3) or sys.argv[2:] not in ([], ["--all"]):
        sys.exit(__doc__)
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:] == ["--all"]))
