"""Lakes and their logs as text and as HTML, for people."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

from dask.utils import format_bytes

from dasklake._model.commit import Commit
from dasklake._schema.schema import Schema, TensorSpec

__all__ = ["History", "lake_html", "lake_text"]

_HEAD = ("tensor", "htype", "shape", "dtype", "compression")

#: Tensors shown of a lake that has many.
_MOST = 60


class History(list[Commit]):
    """Commits, newest first: a list that prints like a log.

    Examples
    --------
    >>> print(History())
    (no commits)
    """

    def __str__(self) -> str:
        return "\n\n".join(map(_commit_text, self)) or "(no commits)"

    __repr__ = __str__


def _commit_text(commit: Commit) -> str:
    message = commit.message.replace("\n", "\n         ")
    return (
        f"Commit : {commit.id} (version {commit.version}, {commit.kind})\n"
        f"Author : {commit.author}\n"
        f"Time   : {commit.time:%Y-%m-%d %H:%M:%S %Z}\n"
        f"Message: {message}"
    )


def lake_text(url: str, commit: Commit, *, complete: bool) -> str:
    """Return what ``repr`` shows of a lake."""
    rows = [_HEAD, *_rows(commit.schema)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(_HEAD))]
    lines = [
        "  " + "  ".join(text.ljust(w) for text, w in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    return "\n".join([f"Lake({url!r}, version={commit.version})", _facts(commit, complete), *lines])


def lake_html(url: str, commit: Commit, *, complete: bool) -> str:
    """Return what a notebook shows of a lake."""
    head = "".join(f"<th>{text}</th>" for text in _HEAD)
    body = "".join(
        f"<tr>{''.join(f'<td>{html.escape(text)}</td>' for text in row)}</tr>"
        for row in _rows(commit.schema)
    )
    return (
        f"<div><b>Lake</b> <code>{html.escape(url)}</code>, version {commit.version}<br>"
        f"{html.escape(_facts(commit, complete))}"
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _facts(commit: Commit, complete: bool) -> str:  # noqa: FBT001 # told apart by its name
    totals = commit.totals
    facts = [f"{totals.samples} samples", format_bytes(totals.size)]
    if totals.failures:
        facts.append(f"{totals.failures} failures")
    facts.append("complete" if complete else "incomplete: a run is unfinished")
    return ", ".join(facts)


def _rows(schema: Schema) -> Iterable[Sequence[str]]:
    for name, spec in list(schema.items())[:_MOST]:
        yield name, spec.htype, _shape(spec), str(spec.dtype), spec.compression or "-"
    if len(schema) > _MOST:
        yield f"… {len(schema) - _MOST} more", "", "", "", ""


def _shape(spec: TensorSpec) -> str:
    if spec.shape is None:
        return "any"
    axes = ", ".join("?" if axis is None else str(axis) for axis in spec.shape)
    return f"({axes},)" if len(spec.shape) == 1 else f"({axes})"
