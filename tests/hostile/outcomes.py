"""Expected outcomes of each attack, for every way to read its lake."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

__all__ = ["OUTCOMES", "Outcome"]

#: Ways that need only the commit.
_COMMIT = ("open", "show", "failures", "reset")

#: Ways that read every tensor.
_ALL = ("iterate", "first", "slice", "bag", "frame", "stats")

#: Tensors that can be an array. All other tensors are refused as one, in every lake.
_ARRAYS = ("number", "flag", "vector")

_LAKE, _ROWS, _CHUNK, _NOTHING = "the lake", "its rows", "its chunk", "nothing"


@dataclass(frozen=True)
class Outcome:
    """The refused part of a lake, and the errors.

    Attributes
    ----------
    refused : str
        The whole lake; all its rows, before a chunk is read; its chunk; a tensor; or nothing.
    code : str
        Code of the error.
    verify : str
        Outcome of verify: ``damaged``, ``read``, or the code of its error.
    but : mapping of str to str
        Outcomes of ways that differ from the above.
    only : str or None
        The only remaining tensor.
    """

    refused: str
    code: str = "corruption"
    verify: str = "damaged"
    but: Mapping[str, str] = field(default_factory=dict)
    only: str | None = None

    def of(self, ways: Iterable[str]) -> dict[str, str]:
        """Return the expected outcomes of ways."""
        return {way: self.but.get(way) or self._of(way) for way in ways}

    def _of(self, way: str) -> str:
        if way == "verify":
            return self.verify
        if self.refused == _LAKE:
            return self.code
        # Statistics are in the segment.
        if way in _COMMIT or (way == "stats" and self.refused != _ROWS):
            return "read"
        tensor = way.rpartition(" ")[2].partition("[")[0]
        if self.only not in (None, tensor) and way not in _ALL:
            return "version-not-found"
        if self.refused == _ROWS:
            return self.code
        if way.startswith("array ") and tensor not in _ARRAYS:
            return "invalid-input"
        if self.refused != _NOTHING and (way in _ALL or self.refused in (_CHUNK, tensor)):
            return self.code
        return "read"

    @property
    def tensors(self) -> set[str]:
        """Return the affected tensor, and tensors to show that all others are unaffected."""
        return {self.refused, "number", "packed"}


def _refused(part: str, *names: str) -> dict[str, Outcome]:
    return dict.fromkeys(names, Outcome(part))


#: By the name of the attack.
OUTCOMES: Mapping[str, Outcome] = {
    **_refused(
        _LAKE,
        "deep JSON",
        "no JSON",
        "a list in the place of a commit",
        "a number of ten thousand digits",
        "a commit of 80 MiB",
        "samples as text",
        "fewer samples than none",
        "samples beyond all measure",
        "more samples than the segments have",
        "totals are a list",
        "an unknown kind",
        "an epoch of no run",
        "a run outside of the root",
        "a segment outside of the root",
        "a segment without a name",
        "the same segment a thousand times",
        "a million segments",
        "expired is a number",
        "branches outside of the root",
        "a schema without tensors' specs",
        "a schema outside of the root",
        "an axis of 2**62",
        "a thousand axes",
        "an invalid type",
    ),
    # A later release may have other dtypes.
    "a dtype that is a list": Outcome(_LAKE, "unsupported-format", "unsupported-format"),
    # Earlier versions are missing, but the newest one can be read without them.
    "a version beyond all measure": Outcome(_NOTHING, but={"show": "version-not-found"}),
    # An expired version can be read as long as its objects exist.
    "all versions are expired": Outcome(_NOTHING, verify="read"),
    **_refused(
        _ROWS,
        "a segment of 2**60 bytes",
        "a compressed segment",
        "half a segment",
        "a run that leaves the root",
        "an index beyond the runs",
        "a negative partition",
        "a chunk of 2**60 bytes",
        "10**12 rows in a small chunk",
        "rows as text",
        "rows without bytes",
    ),
    "rows without bytes, by the schema": Outcome(_ROWS, only="number"),
    **_refused(
        _CHUNK,
        "a chunk of 2**45 bytes",
        "a head of 2**40 bytes",
        "a compressed chunk",
    ),
    **_refused(_NOTHING, "deep statistics", "statistics of other values"),
    # Only what uses statistics reads their column: a frame needs those of labels without a shape.
    "statistics as numbers": Outcome(_NOTHING, but=dict.fromkeys(("stats", "frame"), "corruption")),
    # Verify checks that every object is as written, not that objects match each other.
    "another type than the chunk has": Outcome("number", verify="read"),
    "a tensor that the chunk lacks": Outcome("more", verify="read", but={"stats": "corruption"}),
    # Its statistics are not those of such a tensor.
    "another htype than the chunk has": Outcome("text", but={"stats": "corruption"}),
    **_refused("number", "numbers of another width", "lists in the place of numbers"),
    **_refused("boxes", "offsets that lead anywhere", "negative shapes"),
    **_refused(
        "packed",
        "offsets that go back",
        "shapes of terabytes",
        "shapes of 5 GB",
        "bytes that do not decompress",
    ),
    "a fixed shape of terabytes": Outcome("packed", but={"array packed": "corruption"}),
    **_refused("mask", "masks of terabytes"),
    # A single sample takes no bytes, however long its axes; a column of all samples would.
    "empty and endless": Outcome(
        "boxes", but=dict.fromkeys(("first", "slice", "boxes[3]", "boxes[1:5]"), "read")
    ),
    **_refused("free", "shapes without end"),
    **_refused("text", "text that is not UTF-8"),
    # A number without a name is still a valid number, but a frame shows the names of labels.
    "labels beyond the names": Outcome(_NOTHING, but={"frame": "corruption"}),
}
