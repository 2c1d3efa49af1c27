"""Which URIs a resource template may expand to. Pure, and linear in what servers and clients write.

Each expression of RFC 6570 (`{…}`) may become anything. No regular expression: a server chooses the
template and a client the URI, and a few `.*` in a row would hold the event loop up for ever.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Template:
    """What stands before, between and after the expressions, in order; at least one text."""

    literals: tuple[str, ...]

    @classmethod
    def of(cls, text: str) -> Template:
        """Read a template; a brace that is not closed stands for itself."""
        literals, at = [], 0
        while (start := text.find("{", at)) >= 0 and (end := text.find("}", start)) >= 0:
            literals.append(text[at:start])
            at = end + 1
        return cls((*literals, text[at:]))

    def matches(self, uri: str) -> bool:
        """Whether the literals stand in the URI in this order, without overlap, at its very ends."""
        first, *rest = self.literals
        if not rest:
            return uri == first
        *middle, last = rest
        at, end = len(first), len(uri) - len(last)
        if at > end or not uri.startswith(first) or not uri.endswith(last):
            return False
        for literal in middle:
            found = uri.find(literal, at, end)
            if found < 0:
                return False
            at = found + len(literal)
        return True
