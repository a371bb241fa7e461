"""docs/operations.md and the alert rules name only what is there, and all that there is."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from checks import tree

DOCUMENT = (tree.ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
RULES_FILE = tree.ROOT / "deploy" / "prometheus" / "motte.rules.yml"
RULES = [
    rule
    for group in yaml.safe_load(RULES_FILE.read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]
]


def source(*names: str) -> str:
    """With the parts of a string on several lines joined."""
    text = "\n".join((tree.ROOT / name).read_text(encoding="utf-8") for name in names)
    return re.sub(r'"\s*\n\s*"', "", text)


def families() -> set[str]:
    text = source("server/metrics_text.c")
    return set(re.findall(r'(?:family|put_counter)\(\s*text, "(motte_\w+)"', text))


def codes() -> set[str]:
    return set(re.findall(r'X\([A-Z_]+, "(\w+)"\)', source("base/base.h")))


def family(name: str) -> str:
    return re.sub(r"_(bucket|sum|count)$", "", name)


def section(title: str) -> str:
    return re.split(r"^## ", DOCUMENT.split(f"\n## {title}\n", 1)[1], maxsplit=1, flags=re.M)[0]


def first_column(title: str) -> list[str]:
    rows = re.findall(r"^\| (.+?) \|", section(title), re.M)
    return rows[1:]


def test_R05_the_document_names_every_metric_and_no_other() -> None:
    assert len(families()) > 20
    table = set(re.findall(r"`(motte_\w+)`", "\n".join(first_column("Metrics"))))
    assert table == families()
    assert {family(name) for name in re.findall(r"\bmotte_\w+", DOCUMENT)} <= families()


def test_R05_alerts_stand_on_metrics_labels_and_codes_that_exist() -> None:
    reasons = set(re.findall(r'"(\w+)"', source("server/metrics.c")))
    for rule in RULES:
        expression = rule["expr"]
        named = {family(name) for name in re.findall(r"\bmotte_\w+", expression)}
        assert named <= families(), rule["alert"]
        for listed in re.findall(r'code!?=~?"([^"]+)"', expression):
            assert set(listed.split("|")) <= codes(), rule["alert"]
        for listed in re.findall(r'reason=~?"([^"]+)"', expression):
            assert set(listed.split("|")) <= reasons, rule["alert"]


def test_R05_every_alert_is_explained() -> None:
    names = [rule["alert"] for rule in RULES]
    assert len(names) == len(set(names))
    assert first_column("Alerts") == names


def test_R05_the_rules_are_valid_and_fire_when_they_should(tmp_path: Path) -> None:
    checked = tree.run("promtool", "check", "rules", RULES_FILE)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    cases = Path(__file__).with_name("motte.rules.test.yml").read_text(encoding="utf-8")
    copy = tmp_path / "test.yml"
    copy.write_text(cases.replace("RULES", str(RULES_FILE)), encoding="utf-8")
    done = subprocess.run(
        ["promtool", "test", "rules", str(copy)], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_R39_the_sentences_that_are_explained_are_said() -> None:
    said = source(*(tree.relative(p) for p in tree.sources() if "tests" not in p.parts))
    quoted = [cell.strip("`") for cell in first_column("When motted says")]
    assert len(quoted) >= 10
    assert [words for words in quoted if words not in said] == []


def test_R39_the_codes_that_are_explained_exist() -> None:
    named = re.findall(r"`(\w+)`", "\n".join(first_column("When clients get")))
    assert len(named) >= 15
    assert set(named) <= codes()


@pytest.mark.parametrize("word", ["backup", "restore", "doctor", "leftovers", "token"])
def test_R39_the_commands_that_are_named_exist(word: str) -> None:
    assert f"motted {word}" in DOCUMENT
    assert f'{{{{"{word}", ' in source("admin/main.c")


def test_R39_what_a_reload_takes_is_what_the_document_says() -> None:
    options = source("motted/options.c")
    live = set(re.findall(r'\{"([a-z-]+)", [A-Z]+, LIVE\(', options))
    sentence = section("Reload").split("It takes ", 1)[1].split(";", 1)[0]
    assert set(re.findall(r"`([a-z-]+)`", sentence)) == live
