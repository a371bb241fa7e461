"""Which calls may run by themselves, which are asked for, which never run.

A policy is a list of rules, in a TOML file or made here. A rule names a tool, exactly, and either
all arguments (`arguments`), or the values that some have (`where`), exactly, or neither. The first
rule that fits a call decides. What no rule fits is asked for. There are no patterns.

    [[rule]]
    tool = "run"
    arguments = { command = "ls -l" }
    decision = "allow"

    [[rule]]
    tool = "write_file"
    where = { path = "/etc/passwd" }
    decision = "deny"
"""

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from .canonical import NotJson, canonical
from .tools import ToolCall

RULES_MAX = 10_000
FIELDS = {"tool", "arguments", "where", "decision"}


class Decision(StrEnum):
    ALLOW = "allow"
    ASK = "ask"
    DENY = "deny"


class BadPolicy(ValueError):
    """A policy that is not clear; it says which rule."""


@dataclass(frozen=True, slots=True)
class Rule:
    """`where`: canonical text of the values, by argument. `whole`: no other arguments may be
    there."""

    tool: str
    decision: Decision
    where: Mapping[str, str]
    whole: bool

    @classmethod
    def of(
        cls,
        tool: str,
        decision: Decision | str,
        *,
        arguments: Mapping[str, object] | None = None,
        where: Mapping[str, object] | None = None,
    ) -> "Rule":
        if not isinstance(tool, str) or not tool:
            raise BadPolicy("`tool` must be a tool's name")
        if arguments is not None and where is not None:
            raise BadPolicy("`arguments` are all of them, `where` some of them: use one")
        given = arguments if arguments is not None else where
        if not isinstance(given, Mapping | None):
            raise BadPolicy("`arguments` and `where` must be tables")
        if where is not None and not where:
            raise BadPolicy("`where` is empty: leave it out")
        if decision not in list(Decision):
            raise BadPolicy('`decision` must be "allow", "ask" or "deny"')
        try:
            values = {name: canonical(value) for name, value in (given or {}).items()}
        except NotJson as why:
            raise BadPolicy(str(why)) from None
        return cls(tool, Decision(decision), values, arguments is not None)

    def fits(self, tool: str, arguments: Mapping[str, str]) -> bool:
        """`arguments`: their canonical texts, so that no two types are equal."""
        if tool != self.tool or (self.whole and arguments.keys() != self.where.keys()):
            return False
        return all(arguments.get(name) == text for name, text in self.where.items())

    def covers(self, other: "Rule") -> bool:
        """Whatever fits the other fits this one."""
        if self.tool != other.tool or (self.whole and not other.whole):
            return False
        if self.whole and self.where.keys() != other.where.keys():
            return False
        return self.where.items() <= other.where.items()


class Policy:
    def __init__(self, rules: Iterable[Rule] = ()) -> None:
        """BadPolicy if a rule can never decide since one before it always does."""
        kept: dict[str, list[Rule]] = {}
        for number, rule in enumerate(rules, 1):
            if number > RULES_MAX:
                raise BadPolicy(f"more than {RULES_MAX} rules")
            before = kept.setdefault(rule.tool, [])
            if any(old.covers(rule) for old in before):
                raise BadPolicy(f"rule {number}, for {rule.tool!r}: one above it decides always")
            before.append(rule)
        self._rules = {tool: tuple(listed) for tool, listed in kept.items()}

    @classmethod
    def parse(cls, text: str) -> "Policy":
        """Of a TOML file."""
        try:
            told = tomllib.loads(text)
        except tomllib.TOMLDecodeError as why:
            raise BadPolicy(str(why)) from None
        listed = told.pop("rule", [])
        if told:
            raise BadPolicy(f"{next(iter(told))!r} is not known here: a policy has [[rule]] alone")
        if not isinstance(listed, list):
            raise BadPolicy("rules are written [[rule]]")
        return cls(_rule_of(fields, number) for number, fields in enumerate(listed, 1))

    @classmethod
    def load(cls, path: str | Path) -> "Policy":
        return cls.parse(Path(path).read_text(encoding="utf-8"))

    def decide(self, call: ToolCall) -> Decision:
        arguments = {name: canonical(value) for name, value in call.arguments.items()}
        for rule in self._rules.get(call.tool, ()):
            if rule.fits(call.tool, arguments):
                return rule.decision
        return Decision.ASK


def _rule_of(fields: object, number: int) -> Rule:
    try:
        if not isinstance(fields, dict):
            raise BadPolicy("rules are written [[rule]]")
        if unknown := fields.keys() - FIELDS:
            raise BadPolicy(f"{sorted(unknown)[0]!r} is not known")
        if missing := {"tool", "decision"} - fields.keys():
            raise BadPolicy(f"`{sorted(missing)[0]}` is missing")
        return Rule.of(
            fields["tool"],
            fields["decision"],
            arguments=fields.get("arguments"),
            where=fields.get("where"),
        )
    except BadPolicy as why:
        raise BadPolicy(f"rule {number}: {why}") from None
