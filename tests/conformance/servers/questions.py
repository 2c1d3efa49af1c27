"""Tools that ask their client by a request of their own, in the middle of a call."""

from __future__ import annotations

from typing import Any

from mcp.server.mcpserver import Context, MCPServer
from mcp.shared.exceptions import MCPError
from mcp.types import SamplingMessage, TextContent
from pydantic import BaseModel, Field


async def test_sampling(prompt: str, ctx: Context) -> str:
    message = SamplingMessage(role="user", content=TextContent(type="text", text=prompt))
    try:
        answer = await ctx.session.create_message(
            messages=[message], max_tokens=100, related_request_id=ctx.request_id
        )
    except (MCPError, ValueError) as error:
        return f"Sampling not supported or error: {error}"
    return f"LLM response: {getattr(answer.content, 'text', 'none')}"


class UserResponse(BaseModel):
    response: str = Field(description="User's response")


class Defaults(BaseModel):
    name: str = Field(default="John Doe", description="User name")
    age: int = Field(default=30, description="User age")
    score: float = Field(default=95.5, description="User score")
    status: str = Field(
        default="active", json_schema_extra={"enum": ["active", "inactive", "pending"]}
    )
    verified: bool = Field(default=True, description="Verification status")


def titled(**options: str) -> Any:
    return [{"const": const, "title": title} for const, title in options.items()]


class Enums(BaseModel):
    untitledSingle: str = Field(json_schema_extra={"enum": ["active", "inactive", "pending"]})
    titledSingle: str = Field(
        json_schema_extra={"oneOf": titled(low="Low", medium="Medium", high="High")}
    )
    untitledMulti: list[str] = Field(
        json_schema_extra={"items": {"type": "string", "enum": ["read", "write", "execute"]}}
    )
    titledMulti: list[str] = Field(
        json_schema_extra={"items": {"anyOf": titled(feature="Feature", bug="Bug", docs="Docs")}}
    )
    legacyEnum: str = Field(
        json_schema_extra={"enum": ["small", "large"], "enumNames": ["Small Size", "Large Size"]}
    )


async def elicited(ctx: Context, message: str, schema: type[BaseModel], what: str) -> str:
    try:
        answer = await ctx.elicit(message=message, schema=schema)
    except (MCPError, ValueError) as error:
        return f"Elicitation not supported or error: {error}"
    content = answer.data.model_dump_json() if answer.action == "accept" else "{}"
    return f"{what}: action={answer.action}, content={content}"


async def test_elicitation(message: str, ctx: Context) -> str:
    return await elicited(ctx, message, UserResponse, "User response")


async def test_elicitation_sep1034_defaults(ctx: Context) -> str:
    return await elicited(ctx, "Please provide user information", Defaults, "Elicitation result")


async def test_elicitation_sep1330_enums(ctx: Context) -> str:
    return await elicited(ctx, "Please select values", Enums, "Elicitation completed")


def add_to(server: MCPServer) -> None:
    """Add them under the names that the suite knows."""
    for tool in (
        test_sampling,
        test_elicitation,
        test_elicitation_sep1034_defaults,
        test_elicitation_sep1330_enums,
    ):
        server.tool(description=tool.__name__)(tool)
