"""Who asks for a service, and how a request came out."""

from dataclasses import dataclass

from plugin.rows import Source


@dataclass(frozen=True)
class Outcome:
    """The status to answer with, and what to say beside it (Error Comment, at most 64 characters)."""

    status: int
    comment: str = ""


@dataclass(frozen=True)
class Caller:
    """The other side of an association, and whether it may store here."""

    source: Source
    may_store: bool
