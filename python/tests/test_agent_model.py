"""The model behind HTTP, against a server that speaks the protocol."""

import asyncio
import json
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from model_server import Answer, ModelServer, refuses, says
from motte.agent import (
    Message,
    ModelFailed,
    OpenAiModel,
    Reply,
    Returned,
    System,
    Tool,
    User,
    WantedCall,
)

pytestmark = pytest.mark.testguest  # once is enough: no guest is asked
KEY = "sk-very-secret-1234567890"
ASKED: list[Message] = [System("be good"), User("work")]
TOOL = Tool("run", "Runs it.", {"type": "object", "properties": {"command": {"type": "string"}}})


def ask(
    server: ModelServer, messages: list[Message] | None = None, tools: tuple[Tool, ...] = (),
    **options: Any,
) -> Reply:  # fmt: skip
    async def main() -> Reply:
        options.setdefault("first_pause_s", 0.01)
        async with OpenAiModel(server.url, "small", **options) as model:
            return await model.complete(messages or ASKED, tools)

    return asyncio.run(main())


def test_R32_what_is_asked_and_answered_is_as_the_protocol_says() -> None:
    wanted = WantedCall("c1", "run", '{"command":"ls"}')
    with ModelServer([says(None, ("c1", "run", '{"command":"ls"}')), says("done")]) as server:
        first = ask(server, tools=(TOOL,), api_key=KEY, options={"temperature": 0})
        assert first == Reply("", (wanted,))
        more = [*ASKED, first, Returned("c1", "a\nb"), Returned("c2", "no", True)]
        assert ask(server, more) == Reply("done")
    assert server.asked[0] == {
        "path": "/v1/chat/completions",
        "model": "small",
        "temperature": 0,
        "messages": [
            {"role": "system", "content": "be good"},
            {"role": "user", "content": "work"},
        ],
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": "run", "description": "Runs it.", "parameters": TOOL.schema,
                },
            }
        ],
    }  # fmt: skip
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"
    assert "authorization" not in server.headers[1]
    assert "tools" not in server.asked[1]
    function = {"name": "run", "arguments": '{"command":"ls"}'}
    assert server.asked[1]["messages"][2:] == [
        {
            "role": "assistant", "content": "",
            "tool_calls": [{"id": "c1", "type": "function", "function": function}],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "a\nb"},
        {"role": "tool", "tool_call_id": "c2", "content": "error: no"},
    ]  # fmt: skip


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 504, 529])
def test_R32_what_may_pass_is_asked_again(status: int) -> None:
    with ModelServer([refuses(status, "busy"), refuses(status, "busy"), says("here")]) as server:
        assert ask(server) == Reply("here")
    assert server.asked[0] == server.asked[1] == server.asked[2]


def test_R32_an_answer_that_breaks_off_is_asked_for_again() -> None:
    cut = says("half")
    cut.cut = True
    garbled = Answer(b"not it at all", 200, {"Content-Encoding": "gzip"})
    with ModelServer([cut, garbled, says("all")]) as server:
        assert ask(server) == Reply("all")


@pytest.mark.parametrize("as_date", [False, True])
def test_R32_retry_after_is_waited_for(as_date: bool) -> None:
    at = format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)  # to the second
    said = refuses(429, "slowly", Retry_After=at if as_date else "1")
    with ModelServer([said, says("here")]) as server:
        began = time.monotonic()
        assert ask(server) == Reply("here")
        assert 0.9 <= time.monotonic() - began < 10


@pytest.mark.parametrize("said", ["Mon, 01 Jan 2024 00:00:00 +99999999999999", "soon"])
def test_R32_a_retry_after_that_says_nothing_is_not_waited_for(said: str) -> None:
    with ModelServer([refuses(429, "slowly", Retry_After=said), says("here")]) as server:
        assert ask(server) == Reply("here")


def test_R32_a_proxy_of_the_environment_is_told_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    with ModelServer([]) as proxy, ModelServer([says("here")]) as server:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url.removesuffix("/v1"))
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        assert ask(server, api_key=KEY, retry_s=0) == Reply("here")
        assert proxy.asked == []


def test_R32_nobody_waits_longer_than_wished() -> None:
    said = refuses(429, "quota", Retry_After="3600")
    with ModelServer([said, says("here")]) as server:
        began = time.monotonic()
        with pytest.raises(ModelFailed, match="answered 429: quota"):
            ask(server)
        assert time.monotonic() - began < 10
    with ModelServer([]) as server:
        with pytest.raises(ModelFailed, match="answered 500: nothing more to say"):
            ask(server, retry_s=0.1)
        assert len(server.asked) > 1


def test_R32_a_server_that_is_not_there_reads_in_one_line() -> None:
    server = ModelServer([])
    with server:
        pass
    with pytest.raises(ModelFailed, match=r"^no answer from http://127.0.0.1:\d+/v1/chat"):
        ask(server, retry_s=0.05)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (refuses(400, "no such\nmodel"), "answered 400: no such model$"),
        (refuses(401, "who are you"), "answered 401: who are you$"),
        (Answer(b"<html>", 404), "answered 404: <html>$"),
        (Answer(b"", 403), "answered 403: nothing$"),
        (Answer(b"", 307, {"Location": "http://127.0.0.1:9/"}), "answered 307: nothing$"),
        (Answer(b"{"), "does not read"),
        (Answer(b"[" * 100_000), "does not read"),
        (Answer([]), "the answer is list"),
        (Answer({"error": "x"}), "the answer has no `choices`"),
        (Answer({"choices": []}), "the answer has no choice"),
        (Answer({"choices": [{"message": {}, "finish_reason": 1}]}), "finish_reason is int"),
        (says(None, ("c1", "run", {}), finish="stop"), "arguments is dict"),  # type: ignore[arg-type]
        (says("ha", finish="length"), "cut off"),
        (says("ha", finish="content_filter"), "content_filter"),
        (Answer(b"x" * (9 << 20)), "more than 8388608 bytes"),
    ],
    ids=range(15),
)  # fmt: skip
def test_R32_what_will_not_pass_is_told_at_once(answer: Answer, why: str) -> None:
    with ModelServer([answer, says("not asked for")]) as server:
        with pytest.raises(ModelFailed, match=why):
            ask(server)
        assert len(server.asked) == 1


def test_R32_a_refusal_is_an_answer_and_halves_of_pairs_are_sent_on() -> None:
    refusal = says(None)
    assert isinstance(refusal.body, dict)
    refusal.body["choices"][0]["message"]["refusal"] = "I will not"
    with ModelServer([refusal, says("x\ud800", ("c", "run", '"\ud800"')), says("ok")]) as server:
        assert ask(server) == Reply("I will not")
        odd = ask(server)
        assert ask(server, [*ASKED, odd, Returned("c", "no", True)]) == Reply("ok")


def test_R32_a_key_is_in_no_message_and_no_repr(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(0)
    loud = f"Incorrect API key provided: {'x' * 275}{KEY}"
    with ModelServer([refuses(401, loud), refuses(500, KEY)]) as server:
        model = OpenAiModel(server.url, "small", api_key=KEY)
        assert "small" in repr(model)
        assert KEY not in repr(model) + repr(vars(model)) + str(model._http.headers)
        for _ in range(2):
            with pytest.raises(ModelFailed) as caught:
                ask(server, api_key=KEY, retry_s=0)
            chain = [caught.value, caught.value.__cause__, caught.value.__context__]
            shown = " ".join(f"{one} {one!r}" for one in chain[:2])
            assert "sk-very" not in shown
        asyncio.run(model.close())
    assert KEY not in caplog.text
    assert json.dumps(server.asked).find(KEY) == -1


@pytest.mark.parametrize(
    ("url", "key"),
    [
        ("ftp://host/v1", None),
        ("host/v1", None),
        ("https://user:pass@host/v1", None),
        ("https://host/v1?key=1", None),
        ("http://models.example/v1", KEY),
        ("https://host/v1", f"{KEY}\n"),
        ("https://host/v1", "schlüssel"),
    ],
)
def test_R32_a_key_goes_nowhere_in_the_clear(url: str, key: str | None) -> None:
    with pytest.raises(ValueError, match=r"base_url|https|ASCII") as caught:
        OpenAiModel(url, "small", api_key=key)
    assert KEY not in str(caught.value)
