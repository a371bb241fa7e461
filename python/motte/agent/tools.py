"""What a tool, a call of it and its result are, and the one place that runs a call."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from ..errors import MotteError
from .canonical import Json, canonical, digest, read_object

if TYPE_CHECKING:
    from .approval import Gate


class BadTool(MotteError):
    """A tool that cannot be offered: its name is not one."""


# MCP's rule for names, and `/`, which some servers use. A name is shown to whoever is asked for an
# approval, and may not write more there than itself.
TOOL_NAME = re.compile(r"[A-Za-z0-9_./-]{1,128}")


@dataclass(frozen=True, slots=True)
class Tool:
    """`schema`: of its arguments, a JSON schema of type object. BadTool where `name` has other than
    1 to 128 of A-Z a-z 0-9 _ . / -"""

    name: str
    description: str
    schema: Mapping[str, Json]

    def __post_init__(self) -> None:
        if not TOOL_NAME.fullmatch(self.name):
            raise BadTool(f"{self.name!r} is no name of a tool: use A-Z a-z 0-9 _ . / -")


@dataclass(frozen=True, slots=True)
class ToolResult:
    """`is_error`: the tool itself failed, which the model is told. `structured` with it shows that
    this is the tool's own word; else the VM may be at fault, and is looked at."""

    text: str
    is_error: bool = False
    structured: Mapping[str, Json] | None = None


class McpClient(Protocol):
    """A session with what offers tools. Raises a MotteError where no answer comes; makes no new VM
    for a call, and runs nothing on this host."""

    async def list_tools(self) -> Sequence[Tool]: ...

    async def call_tool(self, name: str, arguments: Mapping[str, Json]) -> ToolResult: ...


@dataclass(frozen=True, slots=True)
class ToolCall:
    """What the model wants done. `text`: the arguments, canonical; as a string nobody can change
    them between the approval and the call."""

    id: str
    tool: str
    text: str
    digest: str

    @classmethod
    def of(cls, call_id: str, tool: str, arguments: Mapping[str, object]) -> "ToolCall":
        """NotJson if there is no digest of these."""
        text = canonical(arguments)
        return cls(call_id, tool, text, digest(tool, text))

    @property
    def arguments(self) -> dict[str, Json]:
        """A copy."""
        return read_object(self.text)


class Refused(MotteError):
    """A call that has no approval, and so did not run."""


async def execute_tool(call: ToolCall, mcp_client: McpClient, gate: "Gate") -> ToolResult:
    """Runs a call where the client's tools run, which is in a VM. Refused, with nothing done, if
    the gate's policy does not allow it and no approval of just this tool and these arguments is
    there that has neither expired nor been used. The digest is taken anew from what is sent."""
    checked = ToolCall.of(call.id, call.tool, call.arguments)
    gate.admit(checked)
    return await mcp_client.call_tool(checked.tool, checked.arguments)
