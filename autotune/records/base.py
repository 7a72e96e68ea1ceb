"""What all records share: frozen, strict about unknown fields, documented field by field."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

__all__ = ["Record"]


class Record(BaseModel):
    """A value that never changes: facts in, facts out."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", protected_namespaces=(), defer_build=True
    )  # a refusal on the command line makes few of all records, and does not wait for the others
