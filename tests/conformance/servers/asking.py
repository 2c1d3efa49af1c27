"""Tools and a prompt that ask their client by `input_required` (2026-07-28)."""

from __future__ import annotations

import json
from typing import Any

from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.prompts.base import UserMessage
from mcp.types import (
    CreateMessageRequest,
    CreateMessageRequestParams,
    CreateMessageResult,
    ElicitRequest,
    ElicitRequestFormParams,
    ElicitResult,
    InputRequest,
    InputRequiredResult,
    ListRootsRequest,
    ListRootsResult,
    SamplingMessage,
    TextContent,
)

Asked = str | InputRequiredResult


def form(message: str, member: str, kind: str = "string") -> ElicitRequest:
    schema = {"type": "object", "properties": {member: {"type": kind}}, "required": [member]}
    return ElicitRequest(params=ElicitRequestFormParams(message=message, requested_schema=schema))


def sample(text: str, max_tokens: int = 50) -> CreateMessageRequest:
    message = SamplingMessage(role="user", content=TextContent(type="text", text=text))
    params = CreateMessageRequestParams(messages=[message], max_tokens=max_tokens)
    return CreateMessageRequest(params=params)


def filled(answer: Any, member: str, missing: str) -> str:
    content = answer.content if isinstance(answer, ElicitResult) else None
    return str(content.get(member, missing)) if content else "?"


async def elicitation(ctx: Context) -> Asked:
    if "user_name" in (given := ctx.input_responses or {}):
        return f"Hello, {filled(given['user_name'], 'name', 'stranger')}!"
    return InputRequiredResult(input_requests={"user_name": form("What is your name?", "name")})


async def sampling(ctx: Context) -> Asked:
    if "capital" in (given := ctx.input_responses or {}):
        answer = given["capital"]
        assert isinstance(answer, CreateMessageResult)
        return f"Model said: {getattr(answer.content, 'text', '?')}"
    question = sample("What is the capital of France?", 100)
    return InputRequiredResult(input_requests={"capital": question})


async def list_roots(ctx: Context) -> Asked:
    if "roots" in (given := ctx.input_responses or {}):
        answer = given["roots"]
        assert isinstance(answer, ListRootsResult)
        return f"Client exposed {len(answer.roots)} root(s)."
    return InputRequiredResult(input_requests={"roots": ListRootsRequest()})


async def request_state(ctx: Context) -> Asked:
    if "confirm" in (ctx.input_responses or {}) and ctx.request_state == "a nonce":
        return "state-ok: confirmation received"
    requests: dict[str, InputRequest] = {"confirm": form("Please confirm", "ok", "boolean")}
    return InputRequiredResult(input_requests=requests, request_state="a nonce")


async def multiple_inputs(ctx: Context) -> Asked:
    requests: dict[str, InputRequest] = {
        "user_name": form("What is your name?", "name"),
        "greeting": sample("Generate a greeting"),
        "client_roots": ListRootsRequest(),
    }
    if requests.keys() <= (ctx.input_responses or {}).keys():
        return "All inputs received."
    return InputRequiredResult(input_requests=requests, request_state="multiple-inputs")


async def multi_round(ctx: Context) -> Asked:
    state = json.loads(ctx.request_state) if ctx.request_state else {"round": 0}
    given = ctx.input_responses or {}
    if state["round"] == 1 and "step1" in given:
        name = filled(given["step1"], "name", "?")
        return InputRequiredResult(
            input_requests={"step2": form("Step 2: What is your favorite color?", "color")},
            request_state=json.dumps({"round": 2, "name": name}),
        )
    if state["round"] == 2 and "step2" in given:
        return f"{state['name']} likes {filled(given['step2'], 'color', '?')}."
    return InputRequiredResult(
        input_requests={"step1": form("Step 1: What is your name?", "name")},
        request_state=json.dumps({"round": 1}),
    )


async def tampered_state(ctx: Context) -> Asked:
    if ctx.request_state is not None:
        return f"state-ok: {ctx.request_state}"
    requests: dict[str, InputRequest] = {"confirm": form("Please confirm", "ok", "boolean")}
    return InputRequiredResult(input_requests=requests, request_state="round-1")


async def capabilities(ctx: Context) -> InputRequiredResult:
    able = ctx.client_capabilities
    requests: dict[str, InputRequest] = {}
    if able is None or able.sampling is not None:
        requests["sample"] = sample("Say hello")
    if able is None or able.elicitation is not None:
        requests["ask"] = form("What is your name?", "name")
    return InputRequiredResult(input_requests=requests, request_state="capability-gated")


async def prompt(ctx: Context) -> list[UserMessage] | InputRequiredResult:
    if "user_context" in (given := ctx.input_responses or {}):
        text = f"Use the following context: {filled(given['user_context'], 'context', '?')}"
        return [UserMessage(role="user", content=TextContent(type="text", text=text))]
    asked = form("What context should the prompt use?", "context")
    return InputRequiredResult(input_requests={"user_context": asked})


def add_to(server: MCPServer) -> None:
    """Add them under the names that the suite knows."""
    for tool in (
        elicitation,
        sampling,
        list_roots,
        request_state,
        multiple_inputs,
        multi_round,
        tampered_state,
        capabilities,
    ):
        name = f"test_input_required_result_{tool.__name__}"
        server.tool(name=name, description=name)(tool)
    name = "test_input_required_result_prompt"
    server.prompt(name=name, description=name)(prompt)
