"""motte-mcp: a machine of its own for whoever speaks MCP."""

import argparse
import asyncio
import os
import signal
import sys

from ..aio.client import AsyncMotte
from ..calls import VmOptions
from ..errors import MotteError
from .sandbox import Machines
from .server import serve_http, serve_stdio
from .tools import SandboxTools

EPILOG = """The service is found by MOTTE_ADDRESS, MOTTE_TOKEN and MOTTE_CA, as by every client
of Motte. One server has one machine, made by the first call that needs it, and its forks; all end
with the server. Each agent gets a server of its own. With --http, MOTTE_MCP_TOKEN is what clients
must send as bearer token."""


def _arguments(given: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("motte-mcp", description=__doc__, epilog=EPILOG)
    parser.add_argument("--image", help="of the machine; the service's first if not given")
    parser.add_argument("--vcpus", type=int)
    parser.add_argument("--memory-mib", type=int)
    parser.add_argument(
        "--http",
        metavar="[HOST:]PORT",
        help="serve streamable HTTP there, on the loopback interface, instead of stdio",
    )
    return parser.parse_args(given)


def _options(arguments: argparse.Namespace) -> VmOptions:
    options: VmOptions = {"labels": {"made-by": "motte-mcp"}}
    if arguments.image is not None:
        options["image"] = arguments.image
    if arguments.vcpus is not None:
        options["vcpus"] = arguments.vcpus
    if arguments.memory_mib is not None:
        options["memory_mib"] = arguments.memory_mib
    return options


async def _serve(arguments: argparse.Namespace, tools: SandboxTools) -> None:
    if arguments.http is None:
        await serve_stdio(tools)
        return
    host, _, port = arguments.http.rpartition(":")
    if not port.isdecimal():
        raise ValueError(f"--http={arguments.http} has no port")
    token = os.environ.get("MOTTE_MCP_TOKEN", "")
    await serve_http(tools, host.strip("[]") or "127.0.0.1", int(port), token)


async def _until_told(arguments: argparse.Namespace) -> None:
    """SIGTERM and SIGINT end it as the end of its input does: machines first."""
    told = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    async with AsyncMotte() as motte, Machines(motte, **_options(arguments)) as machines:
        served = asyncio.ensure_future(_serve(arguments, SandboxTools(machines)))
        end = asyncio.ensure_future(told.wait())
        await asyncio.wait({served, end}, return_when=asyncio.FIRST_COMPLETED)
    if not served.done():
        os._exit(0)  # a thread reads our input, and nothing but its end wakes that
    end.cancel()
    served.result()


def main() -> None:
    try:
        asyncio.run(_until_told(_arguments(sys.argv[1:])))
    except (MotteError, ValueError, OSError) as why:
        sys.exit(f"motte-mcp: {why}")
