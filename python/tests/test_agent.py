"""What runs and what does not: digests, policies, approvals. Nothing here needs a VM."""

import asyncio
import dataclasses
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from motte.agent import (
    BadPolicy,
    Decision,
    Gate,
    Json,
    NotJson,
    Policy,
    Question,
    Refused,
    Rule,
    Tool,
    ToolCall,
    ToolResult,
    Verdict,
    canonical,
    digest,
    execute_tool,
)
from motte.agent.canonical import DEPTH_MAX, TEXT_MAX, read_object

pytestmark = pytest.mark.testguest  # once is enough: no guest is asked
KNOWN = settings(max_examples=60, deadline=None, database=None)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
OBJECTS = st.dictionaries(TEXTS, VALUES, max_size=4)


class Tools:
    """Remembers what ran."""

    def __init__(self) -> None:
        self.ran: list[tuple[str, Mapping[str, Json]]] = []

    async def list_tools(self) -> Sequence[Tool]:
        return ()

    async def call_tool(self, name: str, arguments: Mapping[str, Json]) -> ToolResult:
        self.ran.append((name, arguments))
        return ToolResult("ran")


def run(call: ToolCall, gate: Gate) -> list[tuple[str, Mapping[str, Json]]]:
    """What execute_tool() had run, if it did not raise."""
    tools = Tools()
    asyncio.run(execute_tool(call, tools, gate))
    return tools.ran


# -- digests ---------------------------------------------------------------------------------------


def same(one: object, other: object) -> bool:
    """Python takes 1, 1.0 and True for the same."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and repr(one) == repr(other)


@KNOWN
@given(OBJECTS, st.randoms(use_true_random=False))
def test_R33_a_digest_does_not_hang_on_the_order_of_members(
    value: dict[str, Any], dice: Any
) -> None:
    def shuffled(of: Any) -> Any:
        if isinstance(of, dict):
            members = [(name, shuffled(item)) for name, item in of.items()]
            dice.shuffle(members)
            return dict(members)
        return [shuffled(item) for item in of] if isinstance(of, list) else of

    text = canonical(value)
    assert canonical(shuffled(value)) == text
    assert same(read_object(text), value)
    assert same(read_object(json.dumps(shuffled(value), indent=2)), value)


HIDDEN = st.characters(categories=["Cc", "Cf", "Zl", "Zp", "Zs", "Co", "Cn"])  # not isprintable()


@KNOWN
@given(st.text(st.just("a") | HIDDEN, max_size=20), HIDDEN)
def test_R33_nothing_hides_in_what_an_approver_reads(text: str, hidden: str) -> None:
    """No control, no mark that turns the order of reading, no space without width."""
    shown = ToolCall.of("1", "run", {text + hidden: [hidden + text, "\x7f\u202e\u200b\x9b"]}).text
    assert shown.isascii()
    assert shown.isprintable()
    assert read_object(shown) == {text + hidden: [hidden + text, "\x7f\u202e\u200b\x9b"]}


@KNOWN
@given(VALUES, VALUES)
def test_R33_two_values_have_one_text_only_if_they_are_the_same(one: Any, other: Any) -> None:
    assert (canonical(one) == canonical(other)) == same(one, other)
    assert canonical({"a": one}) != canonical({"a": [one]})


@KNOWN
@given(TEXTS, OBJECTS, TEXTS, OBJECTS)
def test_R33_another_tool_or_other_arguments_have_another_digest(
    tool: str, arguments: dict[str, Any], tool2: str, arguments2: dict[str, Any]
) -> None:
    first, second = ToolCall.of("1", tool, arguments), ToolCall.of("2", tool2, arguments2)
    equal = tool == tool2 and same(arguments, arguments2)
    assert (first.digest == second.digest) == equal
    assert first.digest != digest(tool + first.text[:1], first.text[1:])


DEEP = "[" * 100_000


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"a": 1, "a": 2}', "twice"),
        ('{"a": {"b": 1, "b": 1}}', "twice"),
        ('{"a": NaN}', "NaN"),
        ('{"a": 1e999}', "JSON compliant"),
        ('{"a": "\\ud800"}', "surrogates"),
        ('{"a": ' + "9" * 5000 + "}", "digits"),
        ("[1]", "not an object"),
        ("{", "property name"),
        ("", "Expecting value"),
        ('{"a": ' + DEEP, "levels deep"),
        ('{"a": ' + "[" * DEPTH_MAX + "]" * DEPTH_MAX + "}", "levels deep"),
        ('{"a": "' + "x" * TEXT_MAX + '"}', "are the most"),
    ],
    ids=range(12),
)
def test_R33_what_is_not_plain_json_has_no_digest(text: str, why: str) -> None:
    with pytest.raises(NotJson, match=why):
        ToolCall.of("1", "run", read_object(text))


@pytest.mark.parametrize("value", [{1: 2}, {"a": {None: 1}}, {"a": b""}, {"a": {1}}])
def test_R33_what_json_would_bend_is_refused(value: Any) -> None:
    with pytest.raises(NotJson):
        canonical(value)


# -- policies --------------------------------------------------------------------------------------

POLICY = """
[[rule]]
tool = "run"
arguments = { command = "ls", timeout_s = 1 }
decision = "allow"

[[rule]]
tool = "write_file"
where = { path = "/etc/passwd" }
decision = "deny"

[[rule]]
tool = "write_file"
decision = "allow"
"""


@pytest.mark.parametrize(
    ("tool", "arguments", "decision"),
    [
        ("run", {"timeout_s": 1, "command": "ls"}, "allow"),
        ("run", {"command": "ls", "timeout_s": 1.0}, "ask"),
        ("run", {"command": "ls", "timeout_s": True}, "ask"),
        ("run", {"command": "ls "}, "ask"),
        ("run", {"command": "ls"}, "ask"),
        ("run", {"command": "ls", "timeout_s": 1, "stdin": ""}, "ask"),
        ("run", {}, "ask"),
        ("Run", {"command": "ls", "timeout_s": 1}, "ask"),
        ("run ", {"command": "ls", "timeout_s": 1}, "ask"),
        ("write_file", {"path": "/etc/passwd", "text": "x"}, "deny"),
        ("write_file", {"path": ["/etc/passwd"]}, "allow"),
        ("write_file", {}, "allow"),
        ("no_such_tool", {}, "ask"),
        ("", {}, "ask"),
    ],
)
def test_R33_a_policy_is_exact_and_what_it_does_not_know_is_asked_for(
    tool: str, arguments: dict[str, Any], decision: str, tmp_path: Path
) -> None:
    (tmp_path / "policy.toml").write_text(POLICY, encoding="utf-8")
    assert (
        Policy.load(tmp_path / "policy.toml").decide(ToolCall.of("1", tool, arguments)) == decision
    )


@KNOWN
@given(TEXTS.filter(bool), OBJECTS, TEXTS, OBJECTS)
def test_R33_a_rule_for_one_call_fits_that_call_alone(
    tool: str, arguments: dict[str, Any], tool2: str, arguments2: dict[str, Any]
) -> None:
    policy = Policy([Rule.of(tool, "allow", arguments=arguments)])
    assert policy.decide(ToolCall.of("1", tool, arguments)) is Decision.ALLOW
    for other in (ToolCall.of("2", tool2, arguments2), ToolCall.of("2", tool, arguments2)):
        equal = other.digest == ToolCall.of("1", tool, arguments).digest
        assert policy.decide(other) is (Decision.ALLOW if equal else Decision.ASK)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("rule = 1", "written"),
        ("rule = [1]", "rule 1: rules are written"),
        ("[[rules]]", "'rules' is not known"),
        ('[[rule]]\ntool = "a"', "rule 1: `decision` is missing"),
        ('[[rule]]\ndecision = "deny"', "rule 1: `tool` is missing"),
        ('[[rule]]\ntool = "a"\ndecision = "Allow"', "rule 1: `decision` must be"),
        ('[[rule]]\ntool = ["a"]\ndecision = "deny"', "rule 1: `tool` must be"),
        ('[[rule]]\ntool = ""\ndecision = "deny"', "rule 1: `tool` must be"),
        ('[[rule]]\ntool = "a"\ndecision = ["deny"]', "rule 1: `decision` must be"),
        ('[[rule]]\ntool = "a"\ndecision = "deny"\npath = 1', "rule 1: 'path' is not known"),
        ('[[rule]]\ntool = "a"\ndecision = "deny"\nwhere = {}', "rule 1: `where` is empty"),
        ('[[rule]]\ntool = "a"\ndecision = "deny"\nwhere = "x"', "rule 1: .* must be tables"),
        ('[[rule]]\ntool = "a"\ndecision = "deny"\nwhere = {x = nan}', "rule 1: "),
        ('[[rule]]\ntool = "a"\ndecision = "deny"\nwhere = {x = 1979-05-27}', "date is no JSON"),
        (
            '[[rule]]\ntool = "a"\ndecision = "deny"\nwhere = {x = 1}\narguments = {x = 1}',
            "use one",
        ),
        (
            POLICY + '[[rule]]\ntool = "write_file"\nwhere = {path = "x"}\ndecision = "deny"',
            "rule 4",
        ),
        ("[[rule]", "at line 1"),
    ],
    ids=range(17),
)
def test_R33_a_policy_that_is_not_clear_is_refused(text: str, why: str) -> None:
    with pytest.raises(BadPolicy, match=why):
        Policy.parse(text)


# -- approvals -------------------------------------------------------------------------------------

CALL = ToolCall.of("1", "run", {"command": "rm -r /"})


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


async def granted(question: Question) -> Verdict:
    return question.grant()


def test_R33_execute_tool_runs_nothing_that_has_no_approval() -> None:
    """Also where whoever calls it never asked."""
    gate = Gate(Policy.parse(POLICY), granted)
    tools = Tools()
    for call in (CALL, ToolCall.of("2", "write_file", {"path": "/etc/passwd"})):
        with pytest.raises(Refused):
            asyncio.run(execute_tool(call, tools, gate))
    assert tools.ran == []
    free = ToolCall.of("3", "write_file", {"path": "/tmp/a"})
    assert run(free, gate) == run(free, gate) == [("write_file", {"path": "/tmp/a"})]


def test_R33_an_approval_is_for_one_run_of_one_call() -> None:
    gate = Gate(Policy(), granted)
    asyncio.run(gate.ask(CALL))
    for other in (
        ToolCall.of("1", "run", {"command": "rm -r / "}),
        ToolCall.of("1", "run2", {"command": "rm -r /"}),
        ToolCall.of("1", "run", {"command": "rm -r /", "timeout_s": 9}),
    ):
        with pytest.raises(Refused, match="has no approval"):
            run(other, gate)
    assert run(CALL, gate) == [("run", {"command": "rm -r /"})]
    with pytest.raises(Refused, match="has no approval"):
        run(CALL, gate)


def test_R33_arguments_changed_after_the_approval_do_not_run() -> None:
    """The digest that a call carries is not believed."""
    gate = Gate(Policy(), granted)
    asyncio.run(gate.ask(CALL))
    for changed in (
        dataclasses.replace(CALL, text='{"command":"rm -r /home"}'),
        dataclasses.replace(CALL, tool="run_as_root"),
    ):
        assert changed.digest == CALL.digest
        with pytest.raises(Refused, match="has no approval"):
            run(changed, gate)
    arguments: dict[str, Any] = {"command": ["echo"]}
    call = ToolCall.of("1", "run", arguments)
    asyncio.run(gate.ask(call))
    arguments["command"].append("more")
    call.arguments["command"] = "other"
    assert run(call, gate) == [("run", {"command": ["echo"]})]


def test_R33_an_approval_expires_to_denial() -> None:
    clock = Clock()
    gate = Gate(Policy(), granted, ask_s=60, clock=clock)
    asyncio.run(gate.ask(CALL))
    clock.now = 59.9
    assert len(run(CALL, gate)) == 1
    asyncio.run(gate.ask(CALL))
    clock.now += 60
    with pytest.raises(Refused, match="has expired"):
        run(CALL, gate)
    with pytest.raises(Refused, match="has no approval"):
        run(CALL, gate)


async def never(question: Question) -> Verdict:
    await asyncio.Event().wait()
    return question.grant()


async def stubborn(question: Question) -> Verdict:
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        return question.grant()
    return question.grant()


async def gives_up(_: Question) -> Verdict:
    raise asyncio.CancelledError


async def fails(_: Question) -> Verdict:
    raise OSError("the pager is\nbroken")


def fails_at_once(_: Question) -> Any:
    raise OSError("no terminal")


def answers_at_once(question: Question) -> Any:
    return question.grant()


async def for_another(question: Question) -> Verdict:
    return dataclasses.replace(question.grant(), digest="0" * 64)


async def truthy(question: Question) -> Any:
    return Verdict(question.digest, "no")  # type: ignore[arg-type]


async def no_verdict(_: Question) -> Any:
    return True


async def denies(question: Question) -> Verdict:
    return question.deny("not today")


@pytest.mark.parametrize(
    ("approver", "why"),
    [
        (never, "in time, so it is denied"),
        (stubborn, "in time, so it is denied"),
        (gives_up, "in time, so it is denied"),
        (fails, "asking failed, so it is denied: the pager is broken"),
        (fails_at_once, "asking failed, so it is denied: no terminal"),
        (answers_at_once, "asking failed, so it is denied: "),
        (for_another, "for another call, so this one is denied"),
        (truthy, "denied"),
        (no_verdict, "no verdict, so it is denied"),
        (denies, "denied: not today"),
    ],
)
def test_R33_whatever_is_not_a_grant_is_a_denial(
    approver: Callable[[Question], Awaitable[Verdict]], why: str
) -> None:
    gate = Gate(Policy(), approver, ask_s=0.05)
    with pytest.raises(Refused, match=why):
        asyncio.run(gate.ask(CALL))
    with pytest.raises(Refused, match="has no approval"):
        run(CALL, gate)


def test_R33_an_approver_that_blocks_past_the_end_is_not_heard() -> None:
    clock = Clock()

    async def late(question: Question) -> Verdict:
        clock.now += question.expires_s
        return question.grant()

    gate = Gate(Policy(), late, clock=clock)
    with pytest.raises(Refused, match="in time"):
        asyncio.run(gate.ask(CALL))
    with pytest.raises(Refused):
        run(CALL, gate)


def test_R33_a_question_shows_what_would_run() -> None:
    asked: list[Question] = []

    async def note(question: Question) -> Verdict:
        asked.append(question)
        return question.grant()

    gate = Gate(Policy.parse(POLICY), note, ask_s=7)
    asyncio.run(gate.ask(CALL))
    asyncio.run(gate.ask(ToolCall.of("2", "write_file", {})))
    assert asked == [Question(CALL.digest, "run", '{"command":"rm -r /"}', 7)]
