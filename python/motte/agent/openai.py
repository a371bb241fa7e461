"""A model behind the HTTP interface that OpenAI made and many others speak:
POST {base_url}/chat/completions, with tools, answered in one piece."""

import asyncio
import json
import random
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Self

import httpx

from ..errors import BadAnswer, one_line
from ..parse import parse
from .canonical import Json, canonical, read_object
from .model import Message, ModelFailed, Reply, Returned, System, User, WantedCall
from .tools import Tool

CONNECT_S = 10.0
LAST_PAUSE_S = 30.0
ANSWER_MAX = 8 << 20  # bytes
WORDS_MAX = 300  # characters of a refusal that are told
AGAIN = frozenset((408, 409, 429, 500, 502, 503, 504, 529))
KEY = re.compile(r"[!-~]+")
LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class _Function:
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class _Wanted:
    id: str
    function: _Function


@dataclass(frozen=True, slots=True)
class _Message:
    content: str | None
    refusal: str | None
    tool_calls: tuple[_Wanted, ...] | None


@dataclass(frozen=True, slots=True)
class _Choice:
    message: Mapping[str, object]
    finish_reason: str | None


@dataclass(frozen=True, slots=True)
class _Answer:
    choices: tuple[_Choice, ...]


class _Again(Exception):
    """`after_s`: what the service asked for."""

    def __init__(self, why: str, after_s: float = 0) -> None:
        super().__init__(why)
        self.after_s = after_s


def _message(message: Message) -> dict[str, Any]:
    match message:
        case System(text):
            return {"role": "system", "content": text}
        case User(text):
            return {"role": "user", "content": text}
        case Returned(call_id, text, is_error):
            said = f"error: {text}" if is_error else text
            return {"role": "tool", "tool_call_id": call_id, "content": said}
        case Reply(text, calls):
            told: dict[str, Any] = {"role": "assistant", "content": text}
            if calls:
                told["tool_calls"] = [_call(call) for call in calls]
            return told


def _call(call: WantedCall) -> dict[str, Any]:
    function = {"name": call.tool, "arguments": call.arguments}
    return {"id": call.id, "type": "function", "function": function}


def _tool(tool: Tool) -> dict[str, Any]:
    function = {
        "name": tool.name,
        "description": tool.description,
        "parameters": dict(tool.schema),
    }
    return {"type": "function", "function": function}


def _retry_after(said: str | None) -> float:
    """Seconds or a date; 0 for what is neither."""
    if not said:
        return 0
    if said.isascii() and said.isdecimal():
        return float(said)
    try:
        at = parsedate_to_datetime(said)
    except (ValueError, OverflowError):
        return 0
    at = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
    return max(0.0, (at - datetime.now(UTC)).total_seconds())


def _reply(body: bytes) -> Reply:
    choices = parse(_Answer, json.loads(body), "the answer").choices
    if not choices:
        raise BadAnswer("the answer has no choice")
    choice = choices[0]
    nothing = {"content": None, "refusal": None, "tool_calls": None}
    message = parse(_Message, {**nothing, **choice.message}, "the message")
    calls = tuple(
        WantedCall(one.id, one.function.name, one.function.arguments)
        for one in message.tool_calls or ()
    )
    if choice.finish_reason == "content_filter":
        raise ModelFailed("the model's service held its answer back (content_filter)")
    if choice.finish_reason == "length" and not calls:
        raise ModelFailed("the model's answer was cut off: let it be longer")
    return Reply(message.content or message.refusal or "", calls)


class OpenAiModel:
    """`options`: more fields of the request, such as `temperature` or `max_tokens`. What fails on
    the way, or since the service is busy, is sent again for `retry_s` since it first failed. The
    key is sent to `base_url` alone, not after a redirect, and is in no message and no repr()."""

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        api_key: str | None = None,
        options: Mapping[str, Json] | None = None,
        timeout_s: float = 300,
        retry_s: float = 120,
        first_pause_s: float = 0.5,
    ) -> None:
        url = httpx.URL(base_url.rstrip("/"))
        if url.scheme not in ("http", "https") or not url.host or url.userinfo or url.query:
            raise ValueError("base_url must be https://HOST[:PORT]/PATH, and nothing more")
        if api_key and not KEY.fullmatch(api_key):
            raise ValueError("api_key must be printable ASCII without spaces")
        if api_key and url.scheme != "https" and url.host not in LOOPBACK:
            raise ValueError(f"a key for {url.host} must not go over http: use https")
        self._url = f"{url}/chat/completions"
        self._model = model
        self._options = read_object(canonical(options or {}))
        self._retry_s = retry_s
        self._first_pause_s = first_pause_s
        self._http = httpx.AsyncClient(
            headers={
                "Content-Type": "application/json",
                **({"Authorization": f"Bearer {api_key}"} if api_key else {}),
            },
            timeout=httpx.Timeout(timeout_s, connect=CONNECT_S),
            follow_redirects=False,
            trust_env=False,  # a proxy of the environment would be told the key
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._url!r}, {self._model!r})"

    async def close(self) -> None:
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def complete(self, messages: Sequence[Message], tools: Sequence[Tool]) -> Reply:
        body: dict[str, Any] = {
            **self._options,
            "model": self._model,
            "messages": [_message(message) for message in messages],
        }
        if tools:
            body["tools"] = [_tool(tool) for tool in tools]
        try:
            return _reply(await self._until_answered(json.dumps(body).encode()))
        except (BadAnswer, ValueError, RecursionError) as why:
            raise ModelFailed(self._words(f"the model's answer does not read: {why}")) from None

    async def _until_answered(self, body: bytes) -> bytes:
        failed_at: float | None = None
        pause_s = self._first_pause_s
        while True:
            try:
                return await self._send(body)
            except _Again as why:
                now = time.monotonic()
                failed_at = failed_at or now
                wait_s = max(why.after_s, pause_s * random.uniform(0.5, 1))  # noqa: S311
                if now + wait_s > failed_at + self._retry_s:
                    raise ModelFailed(self._words(str(why))) from None
                await asyncio.sleep(wait_s)
                pause_s = min(2 * pause_s, LAST_PAUSE_S)

    async def _send(self, body: bytes) -> bytes:
        try:
            async with self._http.stream("POST", self._url, content=body) as response:
                told = bytearray()
                async for piece in response.aiter_bytes():
                    told += piece
                    if len(told) > ANSWER_MAX:
                        raise ModelFailed(f"the model's answer has more than {ANSWER_MAX} bytes")
        except (httpx.TransportError, httpx.DecodingError) as why:
            raise _Again(f"no answer from {self._url}: {why or type(why).__name__}") from None
        if response.status_code == 200:
            return bytes(told)
        said = one_line(self._words(_refusal(bytes(told))))[:WORDS_MAX]
        words = f"{self._url} answered {response.status_code}: {said}"
        if response.status_code in AGAIN:
            raise _Again(words, _retry_after(response.headers.get("retry-after")))
        raise ModelFailed(words)

    def _words(self, text: str) -> str:
        """A service may repeat the key where it refuses it."""
        key = self._http.headers.get("authorization", "").removeprefix("Bearer ")
        return text.replace(key, "[the key]") if key else text


def _refusal(body: bytes) -> str:
    try:
        said = json.loads(body)["error"]
        return str(said["message"] if isinstance(said, dict) else said)
    except (ValueError, LookupError, TypeError, RecursionError):
        return body.decode("utf-8", "replace") or "nothing"
