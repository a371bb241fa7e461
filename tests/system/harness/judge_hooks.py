"""Loaded by schemathesis: notes each call, and looks at server errors more closely than it does."""

import json
import os
from typing import Any

import schemathesis
from schemathesis import Case, CheckContext, HookContext, Response

# Of a command that was given 1 ms, and of a VM in which one still runs: what the caller asked for.
ALLOWED = {"exec_timeout", "busy"}


@schemathesis.hook
def after_call(context: HookContext, case: Case[Any], response: Response) -> None:
    line = [case.method, case.operation.label, response.status_code]
    with open(os.environ["MOTTE_JUDGE_CALLS"], "a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


@schemathesis.check
def server_errors_are_the_callers_doing(
    ctx: CheckContext, response: Response, case: Case[Any]
) -> None:
    if response.status_code >= 500:
        code = response.json()["code"]
        assert code in ALLOWED, f"{response.status_code} {code}: {response.json()['detail']}"
