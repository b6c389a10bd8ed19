"""Types of stored values, with the constraints that msgspec checks when it decodes a document."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

#: No count, position or length is larger than this.
MAX_COUNT = 2**63 - 1

#: The name of a run or branch, which becomes part of an object's key.
NAME_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}"

#: The id of a commit, or the digest of a schema.
ID_PATTERN = r"[0-9a-f]{16,32}"

# In Python, "$" also matches before a newline at the end.
_END = r"$(?!\n)"

Count = Annotated[int, Meta(ge=0, le=MAX_COUNT)]
NonNegative = Annotated[float, Meta(ge=0, le=MAX_COUNT)]
Name = Annotated[str, Meta(pattern=f"^{NAME_PATTERN}{_END}")]
ObjectId = Annotated[str, Meta(pattern=f"^{ID_PATTERN}{_END}")]
