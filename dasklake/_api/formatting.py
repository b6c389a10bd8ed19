"""Lakes, commits, runs and values as text, HTML and JSON documents."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from dask.utils import format_bytes

from dasklake._maintenance.reset import ResetReport
from dasklake._maintenance.vacuum import VacuumReport
from dasklake._maintenance.verify import Damage
from dasklake._model.commit import Commit, RunState
from dasklake._schema.schema import Schema, TensorSpec
from dasklake._schema.values import Link

_COLUMNS = ("tensor", "htype", "shape", "dtype", "compression")

#: Tensors shown of a lake that has many.
_MAX_TENSORS = 60

#: Numbers of an array, and characters of a text, that are shown in full.
_MAX_NUMBERS = 16
_MAX_CHARACTERS = 100

#: Deleted objects that are listed after the deletion.
_MAX_KEYS = 20


class History(list[Commit]):
    """A list of commits, newest first, that prints like ``git log``.

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


def commit_document(commit: Commit) -> dict[str, Any]:
    """Return a commit as a JSON document."""
    return {
        "version": commit.version,
        "id": commit.id,
        "kind": commit.kind.value,
        "time": commit.time.isoformat(),
        "author": commit.author,
        "message": commit.message,
        **asdict(commit.totals),
        "progress": asdict(commit.progress) if commit.progress else None,
    }


def lake_text(url: str, commit: Commit, *, complete: bool) -> str:
    """Return the text representation of a lake."""
    lines = _table(commit.schema)
    return "\n".join([f"Lake({url!r}, version={commit.version})", _facts(commit, complete), *lines])


def lake_html(url: str, commit: Commit, *, complete: bool) -> str:
    """Return the HTML representation of a lake, for notebooks."""
    return (
        f"<div><b>Lake</b> <code>{html.escape(url)}</code>, version {commit.version}<br>"
        f"{html.escape(_facts(commit, complete))}"
        f"{_html_table(commit.schema)}</div>"
    )


def _table(schema: Schema) -> list[str]:
    rows = [_COLUMNS, *_rows(schema)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  " + "  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def _html_table(schema: Schema) -> str:
    head = "".join(f"<th>{text}</th>" for text in _COLUMNS)
    body = "".join(
        f"<tr>{''.join(f'<td>{html.escape(text)}</td>' for text in row)}</tr>"
        for row in _rows(schema)
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def view_text(facts: tuple[str, int, int, int], schema: Schema) -> str:
    """Return the text representation of a view: URL, version, samples, samples of the version."""
    url, version, samples, total = facts
    lines = _table(schema)
    return "\n".join([f"View of Lake({url!r}, version={version})", _share(samples, total), *lines])


def view_html(facts: tuple[str, int, int, int], schema: Schema) -> str:
    """Return the HTML representation of a view, for notebooks."""
    url, version, samples, total = facts
    return (
        f"<div><b>View of Lake</b> <code>{html.escape(url)}</code>, version {version}<br>"
        f"{_share(samples, total)}{_html_table(schema)}</div>"
    )


def _share(samples: int, total: int) -> str:
    return f"{samples:,} of {total:,} samples"


def _facts(commit: Commit, complete: bool) -> str:  # noqa: FBT001 # told apart by its name
    totals = commit.totals
    facts = [f"{totals.samples} samples", format_bytes(totals.size)]
    if totals.failures:
        facts.append(f"{totals.failures} failures")
    facts.append("complete" if complete else "incomplete: a run is unfinished")
    return ", ".join(facts)


def _rows(schema: Schema) -> Iterable[Sequence[str]]:
    for name, spec in list(schema.items())[:_MAX_TENSORS]:
        yield name, spec.htype, _shape(spec), str(spec.dtype), spec.compression or "-"
    if len(schema) > _MAX_TENSORS:
        yield f"… {len(schema) - _MAX_TENSORS} more", "", "", "", ""


def _shape(spec: TensorSpec) -> str:
    if spec.shape is None:
        return "any"
    axes = ", ".join("?" if axis is None else str(axis) for axis in spec.shape)
    return f"({axes},)" if len(spec.shape) == 1 else f"({axes})"


def run_document(head: Commit, name: str) -> dict[str, Any]:
    """Return the progress of a run in a version as a JSON document."""
    run = head.runs[name]
    done, total = run.partitions, run.plan.partitions
    if run.plan.inputs and not run.finished:
        done, total = run.inputs, run.plan.inputs
    return {
        "run": name,
        "epoch": run.epoch,
        "state": _state(run),
        "partitions": run.partitions,
        "of": run.plan.partitions,
        "inputs": run.inputs,
        "planned": run.plan.inputs,
        "samples": run.samples,
        "failures": run.failures,
        "percent": round(100 * min(done / max(total, 1), 1.0), 2),
    }


def _state(run: RunState) -> str:
    if run.finished:
        return "finished"
    if run.replaced:
        return "overwritten"
    return "reset" if run.closed >= run.epoch else "unfinished"


def run_text(run: Mapping[str, Any]) -> str:
    """Return the line of a run, given its document."""
    return (
        f"run {run['run']}: {run['state']}, {run['percent']:g} %, {run['samples']:,} samples, "
        f"{run['failures']:,} failed, {run['partitions']:,} of {run['of']:,} partitions"
    )


def deletion_lines(report: ResetReport | VacuumReport) -> Iterable[str]:
    """Yield the deleted objects, or those that a dry run would delete, and a summary."""
    keys = report.objects if report.dry_run else report.objects[:_MAX_KEYS]
    yield from (f"  {key}" for key in keys)
    if len(keys) < len(report.objects):
        yield f"  … and {len(report.objects) - len(keys):,} more"
    uploads = f" and {report.uploads:,} unfinished uploads" if report.uploads else ""
    verb = "Would delete" if report.dry_run else "Deleted"
    yield f"{verb} {len(report.objects):,} objects, {format_bytes(report.bytes)}{uploads}"


def damage_text(damage: Damage) -> str:
    """Return the line of a damaged object."""
    version = "no version" if damage.version is None else f"version {damage.version}"
    rows = f", rows {damage.rows[0]} to {damage.rows[1] - 1}" if damage.rows else ""
    return f"damaged: {damage.key}: {damage.problem} ({damage.branch}, {version}{rows})"


def plain_value(value: Any) -> Any:
    """Return a value that JSON can hold; large arrays and bytes are described."""
    if isinstance(value, Link):
        return value.url
    numeric = isinstance(value, np.generic | np.ndarray) and value.dtype.kind in "biuf"
    if numeric and value.size <= _MAX_NUMBERS:
        return value.tolist()
    if isinstance(value, np.ndarray):
        return f"{value.dtype} array of shape {value.shape}"
    if isinstance(value, bytes | bytearray | memoryview):
        return f"{len(value)} bytes"
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def value_text(value: Any) -> str:
    """Return a plain value as text, cut if it is long."""
    text = "no value" if value is None else f"{value}"
    return text if len(text) <= _MAX_CHARACTERS else f"{text[:_MAX_CHARACTERS]}…"
