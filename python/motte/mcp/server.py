"""An MCP server for tools, over stdio and streamable HTTP."""

import hmac
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import uvicorn
from mcp import stdio_server
from mcp.server import Server
from mcp_types import (
    CallToolRequestParams,
    CallToolResult,
    ListToolsResult,
    PaginatedRequestParams,
    TextContent,
    ToolAnnotations,
)
from mcp_types import Tool as McpTool

from ..agent.tools import McpClient, Tool
from .tools import LOOKING

TOKEN_MIN = 16
PATH = "/mcp"
HOSTS = ("127.0.0.1", "::1", "localhost")  # those for which the SDK checks Host and Origin

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


def _offered(tool: Tool) -> McpTool:
    looks = tool.name in LOOKING
    return McpTool(
        name=tool.name,
        description=tool.description,
        input_schema=dict(tool.schema),
        annotations=ToolAnnotations(
            read_only_hint=looks, destructive_hint=not looks, open_world_hint=False
        ),
    )


def server_of(tools: McpClient) -> Server[Any]:
    """Offers these tools; whose they are, and which machine they act in, is theirs."""

    async def list_tools(_: Any, __: PaginatedRequestParams | None) -> ListToolsResult:
        return ListToolsResult(tools=[_offered(tool) for tool in await tools.list_tools()])

    async def call_tool(_: Any, params: CallToolRequestParams) -> CallToolResult:
        result = await tools.call_tool(params.name, params.arguments or {})
        structured = None if result.structured is None else dict(result.structured)
        return CallToolResult(
            content=[TextContent(text=result.text)],
            structured_content=structured,
            is_error=result.is_error,
        )

    return Server("motte", version="0.1.0", on_list_tools=list_tools, on_call_tool=call_tool)


async def serve_stdio(tools: McpClient) -> None:
    """Until the client closes our input."""
    server = server_of(tools)
    async with stdio_server() as (read, write):
        await server.run(read, write, server.create_initialization_options())


def _admitting(app: App, token: str) -> App:
    """Every user of this host reaches a loopback port: who calls must know the token."""
    wanted = f"Bearer {token}".encode()

    async def admit(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            said = dict(scope["headers"]).get(b"authorization", b"")
            if not hmac.compare_digest(said, wanted):
                headers = [(b"www-authenticate", b"Bearer"), (b"content-length", b"0")]
                await send({"type": "http.response.start", "status": 401, "headers": headers})
                await send({"type": "http.response.body", "body": b""})
                return
        await app(scope, receive, send)

    return admit


async def serve_http(tools: McpClient, host: str, port: int, token: str) -> None:
    """At http://host:port/mcp until SIGINT or SIGTERM. ValueError: none of HOSTS (nothing
    here is encrypted), or a token that can be guessed. The SDK checks Host and Origin against what
    a page in a browser could do by DNS."""
    if host not in HOSTS:
        raise ValueError(f"{host} is not loopback: put a TLS proxy before {', '.join(HOSTS)}")
    if len(token) < TOKEN_MIN:
        raise ValueError(f"the token must have {TOKEN_MIN} characters and more")
    app = server_of(tools).streamable_http_app(streamable_http_path=PATH, host=host)
    config = uvicorn.Config(
        _admitting(app, token), host=host, port=port, log_level="warning", lifespan="on"
    )
    await uvicorn.Server(config).serve()
