"""Decode and encode JSON-RPC envelopes without parsing what is inside them.

A message is decoded to its envelope only: `id`, `params`, `result` and `error` stay the bytes that
arrived (`msgspec.Raw`) and are sent unchanged. What the gateway does rewrite, it rewrites member by
member with `edit`: every value that it does not replace keeps its bytes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias, TypeVar

import msgspec

PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600
METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMS: Final = -32602
INTERNAL_ERROR: Final = -32603
UPSTREAM_UNAVAILABLE: Final = -32001
RESOURCE_NOT_FOUND: Final = -32002
CANCELLED: Final = 0

MALFORMED: Final = (msgspec.DecodeError, RecursionError, UnicodeDecodeError)
"""What decoding raises: invalid JSON, an unexpected shape, too deep nesting, or invalid UTF-8."""
NOTIFICATIONS: Final = "notifications/"
"""The prefix of every notification method, in all revisions and extensions."""
MOST_DIGITS: Final = 18
Json: TypeAlias = str | bytes | memoryview | msgspec.Raw
Value = TypeVar("Value")
_ESCAPE: Final = re.compile(
    rb"\\(?:u[dD][89abAB][\da-fA-F]{2}\\u[dD][c-fC-F][\da-fA-F]{2}|(u[dD][89a-fA-F][\da-fA-F]{2})|.)",
    re.DOTALL,
)
"""An escape in a JSON string; the group matches an unpaired surrogate."""
_CONTROL: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f]")
_ID: Final = re.compile(rb'"(?:i|\\u0069)(?:d|\\u0064)"\s*:\s*')
QUESTION: Final = b'"gateway-'
"""How the id of a request to a client begins: what has such an id answers it, however little it says."""
ID_STARTS: Final = frozenset(b'"-0123456789'[i : i + 1] for i in range(12))
_RAW = msgspec.Raw(b"")


class Envelope(msgspec.Struct, gc=False):
    """A request (`method`, `id`), a notification (`method`) or a response (`id`, `result | error`).

    An absent member is the empty `Raw`. The bytes are views into the message that was decoded.
    """

    jsonrpc: str = ""
    id: msgspec.Raw = _RAW
    method: str = ""
    params: msgspec.Raw = _RAW
    result: msgspec.Raw = _RAW
    error: msgspec.Raw = _RAW

    @property
    def is_request(self) -> bool:
        """Whether this expects a response; a null id is none."""
        return bool(self.method) and bytes(self.id) not in {b"", b"null"}

    @property
    def reply_id(self) -> bytes:
        """Return the id to answer a message with that is refused: its own, as far as it can be one."""
        identity = bytes(self.id)
        return identity if self.jsonrpc == "2.0" and identity[:1] in ID_STARTS else b"null"

    @property
    def fault(self) -> str | None:
        """Return why this is not a valid client message, or None."""
        identity = bytes(self.id)
        if self.jsonrpc != "2.0" or not (self.method or identity):
            return "This is not a JSON-RPC 2.0 message"
        if not self.method:
            known = self.result or self.error or identity.startswith(QUESTION)
            return None if known else "A request has a method, and a response a result or an error"
        if identity in {b"", b"null"}:
            if self.method.startswith(NOTIFICATIONS):
                return None
            return f"{self.method[:100]} is not a notification: send it with an id"
        return None if identity[:1] in ID_STARTS else "The id of a request is a string or a number"


class Target(msgspec.Struct, gc=False):
    """The few members of `params` by which a message is routed."""

    name: str | None = None
    uri: str | None = None
    meta: msgspec.Raw = msgspec.field(default=_RAW, name="_meta")


class Answer(msgspec.Struct, frozen=True):
    """A response: the bytes of `result` or of `error`, without what was already streamed."""

    body: bytes | memoryview
    failed: bool = False
    relayed_bytes: int = 0


def replace_surrogates(data: bytes) -> bytes:
    """Return JSON with each unpaired surrogate replaced by U+FFFD: no string can hold one."""
    return _ESCAPE.sub(lambda found: rb"\ufffd" if found[1] else found[0], data)


def _tolerant(decode: Callable[[Json], Value]) -> Callable[[Json], Value]:
    """Return a decoder for external input, whose strings may be cut in the middle of an emoji."""

    def decoded(data: Json) -> Value:
        try:
            return decode(data)
        except msgspec.DecodeError:
            text = data.encode() if isinstance(data, str) else bytes(data)
            whole = replace_surrogates(text)
            if whole == text:
                raise
            return decode(whole)

    return decoded


_decode_envelope = msgspec.json.Decoder(Envelope).decode
decode_batch = _tolerant(msgspec.json.Decoder(list[msgspec.Raw]).decode)
decode_target = msgspec.json.Decoder(Target).decode
decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
decode_any = msgspec.json.Decoder().decode
encode = msgspec.json.Encoder().encode


def is_batch(body: bytes) -> bool:
    """Return whether a body holds an array."""
    return body.lstrip()[:1] == b"["


def decode_envelope(data: Json) -> Envelope:
    """Decode a message; its id keeps the bytes that were sent, so that a response can repeat them."""
    try:
        return _decode_envelope(data)
    except msgspec.DecodeError:
        text = data.encode() if isinstance(data, str) else bytes(data)
        whole = replace_surrogates(text)
        if whole == text:
            return _decode_envelope(_without_null_method(text))
        message = _decode_envelope(whole)
    if (identity := bytes(message.id)) and rb"\ufffd" in identity:  # as long as what it replaced
        for name in _ID.finditer(whole):
            if whole.startswith(identity, name.end()):
                message.id = msgspec.Raw(text[name.end() : name.end() + len(identity)])
    return message


def _without_null_method(text: bytes) -> bytes:
    """Return a message without a null method: some programs write all members of a message, used or not."""
    unused = bytes(decode_members(text).get("method", b"")) == b"null"
    return edit(text, {"method": None}) if unused else text


def messages_in(data: bytes) -> list[Envelope]:
    """Return the message, or those of a batch. Raises MALFORMED."""
    if not is_batch(data):
        return [decode_envelope(data)]
    return [decode_envelope(part) for part in decode_batch(data)]


def readable(data: bytes) -> bytes:
    """Return a server's output as UTF-8 without a byte order mark; invalid bytes are replaced."""
    try:
        data.decode()
    except UnicodeDecodeError:
        data = data.decode("utf-8", "replace").encode()
    return data.removeprefix(b"\xef\xbb\xbf")


def printable(line: bytes) -> str:
    """Return a server's line with terminal control characters replaced."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", line.decode("utf-8", "replace"))


def request(identity: bytes | memoryview, method: str, params: bytes | memoryview) -> bytes:
    """Return the bytes of a request; `params` may be empty."""
    return b"".join(
        (b'{"jsonrpc":"2.0","id":', identity, b',"method":', encode(method), _params(params), b"}")
    )


def notification(method: str, params: bytes | memoryview = b"") -> bytes:
    """Return the bytes of a notification."""
    return b"".join((b'{"jsonrpc":"2.0","method":', encode(method), _params(params), b"}"))


def response(identity: bytes | memoryview, answer: Answer) -> bytes:
    """Return the bytes of the response to the request `identity`."""
    member = b',"error":' if answer.failed else b',"result":'
    return b"".join((b'{"jsonrpc":"2.0","id":', identity or b"null", member, answer.body, b"}"))


def _params(params: bytes | memoryview) -> bytes:
    return b',"params":' + bytes(params) if params else b""


def number_of(raw: bytes | msgspec.Raw) -> int:
    """Return the integer in these bytes if it can be one of our ids, else 0.

    As for the official clients, "7" and 7.0 are 7: some servers repeat a number in another form.
    """
    digits = bytes(raw)
    if not digits.isdigit():
        digits = digits.removeprefix(b'"').removesuffix(b'"').removesuffix(b".0")
    return int(digits) if len(digits) <= MOST_DIGITS and digits.isdigit() else 0


def answer_in(message: Envelope, who: str = "server") -> Answer:
    """Return the response in a message. One with neither result nor error is a failure."""
    error = bytes(message.error)
    if error[:1] == b"{":
        return Answer(error, failed=True)
    if error and error != b"null":
        shown = error[:100].decode("utf-8", "replace")
        return failure(
            INTERNAL_ERROR, f"The {who} returned an error that is not an object: {shown}"
        )
    if not message.result:
        return failure(INTERNAL_ERROR, f"The {who} returned neither a result nor an error")
    return Answer(bytes(message.result))


def failure(code: int, message: str, data: object = None) -> Answer:
    """Return an error response of the gateway's own."""
    error: dict[str, object] = {"code": code, "message": message}
    if data is not None:
        error["data"] = data
    return Answer(encode(error), failed=True)


def success(result: object) -> Answer:
    """Return a successful response of the gateway's own."""
    return Answer(encode(result))


def edit(raw: bytes | memoryview, changes: Mapping[str, bytes | None]) -> bytes:
    """Return the JSON object `raw` with members replaced, added, or (None) removed.

    The bytes of every other member stay as they are; only whitespace between members is removed.
    """
    members: dict[str, Any] = decode_members(raw) if raw else {}
    for key, value in changes.items():
        if value is None:
            members.pop(key, None)
        else:
            members[key] = msgspec.Raw(value)
    return encode(members)


def token_in(meta: bytes) -> bytes:
    """Return the bytes of the token in the `_meta` of a request, or nothing if there is none to use."""
    token = member(meta, "progressToken")
    return token if token[:1] in ID_STARTS else b""


def member(raw: bytes | memoryview, key: str) -> bytes:
    """Return the bytes of one member of the JSON object `raw`, or nothing."""
    if not raw:
        return b""
    value = decode_members(raw).get(key)
    return b"" if value is None else bytes(value)


# --- ambiguous messages --------------------------------------------------------------------------


class Names:
    """Names of the members that the gateway routes or checks by."""

    def __init__(self, *names: str) -> None:
        self.exact = frozenset(names)
        self.folded = {name.casefold(): name for name in names}
        self.room = min(map(len, names)) + len('"":0,')
        """The minimum size in bytes of a second member with such a name."""


VERSION_KEY: Final = "io.modelcontextprotocol/protocolVersion"
CLIENT_KEY: Final = "io.modelcontextprotocol/clientInfo"
CAPABILITIES_KEY: Final = "io.modelcontextprotocol/clientCapabilities"
LOG_LEVEL_KEY: Final = "io.modelcontextprotocol/logLevel"
ENVELOPE_KEYS: Final = (VERSION_KEY, CLIENT_KEY, CAPABILITIES_KEY, LOG_LEVEL_KEY)
"""The members of `_meta` by which a stateless request carries its envelope."""

ENVELOPE: Final = Names("jsonrpc", "id", "method", "params", "result", "error")
PARAMS: Final = Names(
    *("name", "uri", "ref", "taskId", "requestId", "cursor", "progressToken", "_meta"),
    *("arguments", "requestState", "inputResponses"),
)
INSIDE: Final[Mapping[str, Names]] = {
    "ref": Names("type", "name", "uri"),
    "_meta": Names("progressToken", *ENVELOPE_KEYS),
}
"""Member of the params → the names in it that the gateway routes or checks by."""
_NAME: Final = re.compile(rb'[\s{,]*"((?:[^"\\]++|\\.)*+)"\s*:\s*', re.DOTALL)


def ambiguity(body: bytes, message: Envelope) -> bytes | None:
    """Return the error response to a client message with duplicate or case-variant members, or None.

    JSON leaves open which of two members with the same name counts (RFC 8259, section 4): the gateway
    takes the last, some parsers the first, and Go's parser does not distinguish `Name` from `name`. The
    gateway checks some members and forwards the bytes, so such a message could make the server run
    something other than what was checked. A message with no bytes to spare beyond its known members
    cannot hold another one; only one with more whitespace or escapes than that is parsed name by name.

    `message` is what the gateway reads in `body`. Raises MALFORMED.
    """
    spare = len(body) - _least(message) - body.startswith(b'{"jsonrpc": ')
    if spare >= ENVELOPE.room:
        whole = replace_surrogates(body)
        if (name := _ambiguous(whole, decode_members(whole), ENVELOPE)) is not None:
            return response(
                b"null", failure(INVALID_REQUEST, f"Invalid request: {_twice_message(name)}")
            )
    identity = bytes(message.id)
    if b"\\u" in identity and replace_surrogates(identity) != identity:
        text = "Invalid request: the id holds half of a surrogate pair, which no answer can repeat"
        return response(b"null", failure(INVALID_REQUEST, text))
    params = bytes(message.params)
    if params[:1] != b"{":
        return None
    members = decode_members(params)
    name = _ambiguous(params, members, PARAMS)
    for key, names in INSIDE.items():
        if name is None and key in members and (inner := bytes(members[key]))[:1] == b"{":
            name = _ambiguous(inner, decode_members(inner), names)
    if name is None:
        return None
    return response(message.id, failure(INVALID_PARAMS, f"Invalid params: {_twice_message(name)}"))


def ambiguous_params(params: bytes, names: Names) -> Answer | None:
    """Return the error for params in which one of these names appears twice, or in another case; or None."""
    if params[:1] != b"{" or (name := _ambiguous(params, decode_members(params), names)) is None:
        return None
    return failure(INVALID_PARAMS, f"Invalid params: {_twice_message(name)}")


def duplicate_in(raw: bytes, path: tuple[str, ...]) -> str | None:
    """Return a name that appears twice in one of the JSON objects that a path leads through, or None."""
    for key in (*path, ""):
        if raw[:1] != b"{":
            return None
        members = decode_members(raw)
        if (name := _twice(raw, members)) is not None:
            return name
        raw = bytes(members.get(key, b""))
    return None


def _twice_message(name: str) -> str:
    return f"{name[:100]!r} appears twice, or in another case: which one counts is ambiguous"


def _least(message: Envelope) -> int:
    """Return the minimum length of a message with these members only, without whitespace."""
    least = len('{"jsonrpc":"2.0"}')
    if message.id:
        least += len(',"id":') + len(message.id)
    if message.method:
        least += len(',"method":""') + len(message.method)
    if message.params:
        least += len(',"params":') + len(message.params)
    if message.result:
        least += len(',"result":') + len(message.result)
    if message.error:
        least += len(',"error":') + len(message.error)
    return least


def _ambiguous(raw: bytes, members: Mapping[str, msgspec.Raw], names: Names) -> str | None:
    """Return a name in the JSON object `raw` that is duplicated or a case variant of one of `names`."""
    least = 1
    for name, value in members.items():
        least += len(name) + len(value) + len('"":,')
        if name not in names.exact and (known := names.folded.get(name.casefold())) is not None:
            return known
    return None if len(raw) - least < names.room else _twice(raw, members)


def _twice(raw: bytes, members: Mapping[str, msgspec.Raw]) -> str | None:
    """Return a duplicated name, if there is one; `members` has the last value of each."""
    seen: set[str] = set()
    at, name = 0, ""
    while (found := _NAME.match(raw, at)) is not None:
        name = str(decode_any(b'"' + found[1] + b'"'))
        value = bytes(members[name])
        if name in seen or not raw.startswith(value, found.end()):
            return name
        seen.add(name)
        at = found.end() + len(value)
    return None if raw[at:].strip() == b"}" or not members else name
