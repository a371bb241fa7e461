"""An agent whose tools run in a VM.

    outcome = await run_task(task, model=model, vm=vm, mcp_client=VmTools(vm), gate=Gate(policy))

policy.py says what a policy is, approval.py who is asked, loop.py what an outcome is.
"""

from .approval import Approver, Gate, Question, Verdict, nobody
from .canonical import Json, NotJson, canonical, digest
from .loop import Called, End, Limits, Machine, Outcome, Status, run_task
from .model import (
    Message,
    Model,
    ModelFailed,
    Reply,
    Returned,
    ScriptedModel,
    System,
    User,
    WantedCall,
)
from .openai import OpenAiModel
from .policy import BadPolicy, Decision, Policy, Rule
from .tools import BadTool, McpClient, Refused, Tool, ToolCall, ToolResult, execute_tool
from .vm_tools import VmTools

__all__ = [
    "Approver", "BadPolicy", "BadTool", "Called", "Decision", "End", "Gate", "Json", "Limits",
    "Machine", "McpClient", "Message", "Model", "ModelFailed", "NotJson", "OpenAiModel", "Outcome",
    "Policy", "Question", "Refused", "Reply", "Returned", "Rule", "ScriptedModel", "Status",
    "System", "Tool", "ToolCall", "ToolResult", "User", "Verdict", "VmTools", "WantedCall",
    "canonical", "digest", "execute_tool", "nobody", "run_task",
]  # fmt: skip
