"""A client of any MCP server: what motte.agent calls tools through."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Self

import httpx2
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp.server import Server
from mcp_types import CallToolResult, ContentBlock, TextContent

from ..agent.canonical import Json
from ..agent.tools import Tool, ToolResult
from ..errors import MotteError

ANSWER_S = 3700.0  # longer than any tool of ours may take
PAGES_MAX = 64


class McpFailed(MotteError):
    """No answer: the server is gone, or does not speak the protocol. What it did is not known."""


@asynccontextmanager
async def _http(url: str, token: str) -> AsyncIterator[Any]:
    headers = {"Authorization": f"Bearer {token}"}
    timeout = httpx2.Timeout(30, read=ANSWER_S)
    async with (
        httpx2.AsyncClient(headers=headers, timeout=timeout) as http,
        streamable_http_client(url, http_client=http) as streams,
    ):
        yield streams


def _line(block: ContentBlock) -> str:
    """Text as it is; of anything else that it was there."""
    if isinstance(block, TextContent):
        return block.text
    data = getattr(block, "data", "")
    kind = getattr(block, "mime_type", None) or block.type
    return f"[{kind}, {len(data)} bytes in base64]"


def _object(value: object) -> Mapping[str, Json] | None:
    return value if isinstance(value, dict) else None


class McpClient:
    """`async with` opens the session and ends it. From one task at a time.

    The SDK raises many things for what a server sends, down to RuntimeError for a result that does
    not fit its schema: all of them are McpFailed here."""

    def __init__(self, client: Client) -> None:
        self._client = client

    @classmethod
    def stdio(
        cls, command: str, *arguments: str, environment: Mapping[str, str] | None = None
    ) -> Self:
        """A server that is a program of this host, started and ended with the session."""
        given = None if environment is None else dict(environment)
        program = StdioServerParameters(command=command, args=list(arguments), env=given)
        return cls(Client(program, read_timeout_seconds=ANSWER_S))

    @classmethod
    def http(cls, url: str, token: str) -> Self:
        return cls(Client(_http(url, token), read_timeout_seconds=ANSWER_S))

    @classmethod
    def of(cls, server: Server[Any]) -> Self:
        """A server in this very process."""
        return cls(Client(server, read_timeout_seconds=ANSWER_S))

    async def __aenter__(self) -> Self:
        try:
            await self._client.__aenter__()
        except Exception as why:
            raise McpFailed(f"the MCP server did not begin a session: {why}") from why
        return self

    async def __aexit__(self, *_: object) -> None:
        """Not told why: the SDK would hand it on inside of an ExceptionGroup."""
        await self._client.__aexit__(None, None, None)

    async def list_tools(self) -> Sequence[Tool]:
        tools: list[Tool] = []
        cursor = None
        for _ in range(PAGES_MAX):
            try:
                page = await self._client.list_tools(cursor=cursor)
                tools += [
                    Tool(one.name, one.description or "", one.input_schema) for one in page.tools
                ]
            except Exception as why:
                raise McpFailed(f"the MCP server did not tell its tools: {why}") from why
            cursor = page.next_cursor
            if cursor is None:
                return tools
        raise McpFailed(f"the MCP server has more than {PAGES_MAX} pages of tools")

    async def call_tool(self, name: str, arguments: Mapping[str, Json]) -> ToolResult:
        try:
            told: CallToolResult = await self._client.call_tool(name, dict(arguments))
        except Exception as why:
            raise McpFailed(f"the MCP server did not answer {name!r}: {why}") from why
        text = "\n".join(_line(block) for block in told.content)
        return ToolResult(text, told.is_error, _object(told.structured_content))
