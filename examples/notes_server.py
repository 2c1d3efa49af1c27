"""A small MCP server over Streamable HTTP: notes that live as long as the process.

    python examples/notes_server.py --port 3002        # serves http://127.0.0.1:3002/mcp
    python examples/notes_server.py --port 0           # prints the URL that the system chose

It is written with the official SDK and speaks every revision that the SDK speaks.
"""

from __future__ import annotations

import argparse
import socket
from datetime import UTC, datetime

import uvicorn
from mcp.server.mcpserver import MCPServer

server = MCPServer("notes", instructions="Keep short notes, and find them again.")
notes: dict[str, str] = {"welcome": "This note came with the demo of Local MCP Gateway."}


@server.tool()
def add_note(title: str, text: str) -> str:
    """Keep a note under a title. A note of the same title is replaced."""
    notes[title] = text
    return f"Kept {title!r}, {len(notes)} notes in all."


@server.tool()
def list_notes() -> list[str]:
    """List the titles of all notes."""
    return sorted(notes)


@server.tool()
def find_notes(words: str) -> dict[str, str]:
    """Return every note that holds all of these words."""
    wanted = words.lower().split()
    return {
        title: text
        for title, text in notes.items()
        if all(word in f"{title} {text}".lower() for word in wanted)
    }


@server.resource("note://all", mime_type="text/markdown")
def all_notes() -> str:
    """All notes as one page."""
    return "\n\n".join(f"# {title}\n{text}" for title, text in sorted(notes.items()))


@server.resource("note://by-title/{title}", mime_type="text/plain")
def one_note(title: str) -> str:
    """One note."""
    return notes[title]


@server.prompt()
def summarize(days: str = "7") -> str:
    """Ask for a summary of the notes."""
    today = datetime.now(UTC).date().isoformat()
    return f"Today is {today}. Summarize my notes of the last {days} days:\n\n{all_notes()}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=3002)
    listening = socket.create_server(("127.0.0.1", parser.parse_args().port))
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    print(f"http://127.0.0.1:{listening.getsockname()[1]}/mcp", flush=True)
    uvicorn.Server(uvicorn.Config(server.streamable_http_app(), log_level="warning")).run(
        [listening]
    )


if __name__ == "__main__":
    main()
