"""Tools of a VM over the Model Context Protocol, by its official SDK: `pip install 'motte[mcp]'`.

McpClient is what motte.agent calls tools through; SandboxTools are what `motte-mcp` serves.
"""

from .client import McpClient, McpFailed
from .sandbox import Machines
from .server import serve_http, serve_stdio, server_of
from .tools import SandboxTools

__all__ = [
    "Machines", "McpClient", "McpFailed", "SandboxTools", "serve_http", "serve_stdio", "server_of",
]  # fmt: skip
