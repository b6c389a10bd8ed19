"""The command line: ``dasklake …``, and ``dask lake …``.

Exit codes: 0, all is well; 1, an error, or damage was found; 2, the call is wrong.
"""

from __future__ import annotations

import functools
import itertools
import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import click
import numpy as np
from dask.utils import format_bytes

from dasklake._api.formatting import History
from dasklake._api.lake import open as open_lake
from dasklake._log.heartbeat import OBSERVE_SECONDS, newest_heartbeat
from dasklake._log.log import Log
from dasklake._maintenance import compact as compacting
from dasklake._maintenance import reset as resetting
from dasklake._maintenance import vacuum as vacuuming
from dasklake._maintenance import verify as verifying
from dasklake._model.commit import Commit, RunState
from dasklake._run.options import parse_age, parse_size
from dasklake._run.progress_bar import make_count_bar
from dasklake._schema.values import Link
from dasklake._storage.store import ObjectStore
from dasklake.creds import StorageOptions
from dasklake.exceptions import LakeError, VersionNotFoundError

__all__ = ["cli", "main"]

#: Arrays up to this many numbers, and texts up to this many characters, are shown whole.
_FEW_NUMBERS = 16
_WIDTH = 100

#: Keys that a listing of leftovers shows before it is cut short.
_SHOWN = 20


@dataclass(frozen=True, slots=True)
class _Target:
    """The lake a command is about, and how to talk about it."""

    url: str
    storage_options: StorageOptions
    as_json: bool

    @property
    def store(self) -> ObjectStore:
        return ObjectStore(self.url, self.storage_options)

    @property
    def progress(self) -> bool | Literal["auto"]:
        """Whether to show a bar."""
        return False if self.as_json else "auto"

    def print(self, document: Mapping[str, Any], lines: Iterable[str]) -> None:
        """Print the one for programs or the other for people."""
        if self.as_json:
            click.echo(json.dumps(document, ensure_ascii=False, default=str))
        else:
            for line in lines:
                click.echo(line)


@click.group("lake", context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="dasklake", prog_name="dasklake")
def cli() -> None:
    """Look at lakes of samples, follow their runs, clean up and check them.

    URL is a path or any URL that fsspec knows, such as s3://bucket/lake.

    Exit codes: 0, all is well; 1, an error, or damage was found; 2, the call is wrong.
    """


def main() -> None:
    """Run the command line under its own name."""
    cli(prog_name="dasklake")


def _option(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> dict[str, Any]:
    """Read NAME=VALUE pairs; a value that is JSON is taken as such."""
    found: dict[str, Any] = {}
    for each in values:
        name, separator, value = each.partition("=")
        if not separator or not name:
            raise click.BadParameter(f"{name!r} is not of the form NAME=VALUE.")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found


_OPTIONS = (
    click.option("--debug", is_flag=True, help="Show where an error came from."),
    click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs."),
    click.option(
        "-o",
        "--option",
        multiple=True,
        metavar="NAME=VALUE",
        callback=_option,
        help="A storage option, such as anon=true. Not for secrets: others can see them.",
    ),
    click.option(
        "--creds",
        metavar="KEY",
        help="Key of the storage options in the Dask configuration, dasklake.creds.KEY.",
    ),
    click.argument("url"),
)


def _command(*options: Callable[..., Any]) -> Callable[[Callable[..., None]], click.Command]:
    """Make a command of a function whose first parameter is a :class:`_Target`."""

    def decorate(function: Callable[..., None]) -> click.Command:
        @functools.wraps(function)
        def call(
            url: str,
            *,
            creds: str | None,
            option: dict[str, Any],
            as_json: bool,
            debug: bool,
            **rest: Any,
        ) -> None:
            if creds and option:
                raise click.UsageError("Give either --creds or --option.")
            try:
                function(_Target(url, creds or option or None, as_json), **rest)
            except (click.ClickException, click.exceptions.Exit, click.Abort):
                raise
            except Exception as error:
                # The door to the shell: a traceback is for those who asked for it.
                if debug:
                    raise
                told = f"{error}"
                if not isinstance(error, LakeError):
                    told = f"Unexpected {type(error).__name__}: {error}. See it with --debug."
                click.echo(f"Error: {told}", err=True)
                raise SystemExit(1) from None

        wrapped: Callable[..., None] = call
        for each in (*reversed(options), *_OPTIONS):
            wrapped = each(wrapped)
        return cli.command(function.__name__)(wrapped)

    return decorate


@_command()
def info(target: _Target) -> None:
    """Show what a lake holds."""
    lake = open_lake(target.url, storage_options=target.storage_options)
    runs = [_run(lake.commit, name) for name in _written(lake.commit)]
    document = {
        "url": lake.url,
        "version": lake.version,
        "time": lake.commit.time.isoformat(),
        "is_complete": lake.is_complete,
        **asdict(lake.commit.totals),
        "schema": lake.schema.to_json(),
        "runs": runs,
    }
    target.print(document, [repr(lake), *map(_run_line, runs)])


def _written(head: Commit) -> list[str]:
    """Return the runs that write something new."""
    return [name for name, state in head.runs.items() if not state.plan.compaction]


def _run(head: Commit, name: str) -> dict[str, Any]:
    """Return what a version says of a run, for programs."""
    state = head.runs[name]
    return {
        "run": name,
        "epoch": state.epoch,
        "state": _state(state),
        "partitions": state.partitions,
        "of": state.plan.partitions,
        "inputs": state.inputs,
        "planned": state.plan.inputs,
        "samples": state.samples,
        "failures": state.failures,
        "percent": _percent(state),
    }


def _state(state: RunState) -> str:
    if state.finished:
        return "finished"
    if state.replaced:
        return "overwritten"
    return "reset" if state.closed >= state.epoch else "unfinished"


def _percent(state: RunState) -> float:
    done, of = state.partitions, state.plan.partitions
    if state.plan.inputs and not state.finished:
        done, of = state.inputs, state.plan.inputs
    return round(100 * min(done / max(of, 1), 1.0), 2)


def _run_line(run: Mapping[str, Any]) -> str:
    return (
        f"run {run['run']}: {run['state']}, {run['percent']:g} %, {run['samples']:,} samples, "
        f"{run['failures']:,} failed, {run['partitions']:,} of {run['of']:,} partitions"
    )


@_command(
    click.option("-n", "--max-count", type=click.IntRange(min=1), help="Show only so many."),
    click.option("--all", "everything", is_flag=True, help="Also show entries without samples."),
)
def log(target: _Target, max_count: int | None, *, everything: bool) -> None:
    """Show the versions of a lake, newest first."""
    log = Log(target.store)
    commits = map(log.read, range(log.require_head().version, -1, -1))
    shown = (commit for commit in commits if everything or commit.kind.is_data)
    for commit in itertools.islice(shown, max_count):
        document = {
            "version": commit.version,
            "id": commit.id,
            "kind": commit.kind.value,
            "time": commit.time.isoformat(),
            "author": commit.author,
            "message": commit.message,
            **asdict(commit.totals),
            "progress": asdict(commit.progress) if commit.progress else None,
        }
        target.print(document, [f"{History([commit])}", ""])


@_command(
    click.option("-n", "--count", type=click.IntRange(min=0), default=5, help="So many samples."),
    click.option("-c", "--column", "columns", multiple=True, help="Only this tensor; repeatable."),
)
def head(target: _Target, count: int, columns: tuple[str, ...]) -> None:
    """Show the first samples of a lake."""
    lake = open_lake(target.url, storage_options=target.storage_options)
    names = columns or tuple(lake.schema)
    values = [lake[name][: min(count, len(lake))] for name in names]
    for place, sample in enumerate(zip(*values, strict=True)):
        shown = {name: _plain(value) for name, value in zip(names, sample, strict=True)}
        lines = [f"{place}:", *(f"  {name}: {_short(value)}" for name, value in shown.items())]
        target.print({"row": place, **shown}, lines)


def _plain(value: Any) -> Any:
    """Return what of a value can be read: itself, or what it is an array or file of."""
    if isinstance(value, Link):
        return value.url
    if isinstance(value, np.generic) and value.dtype.kind in "biuf":
        return value.item()
    if isinstance(value, np.ndarray):
        if value.size <= _FEW_NUMBERS and value.dtype.kind in "biuf":
            return value.tolist()
        return f"{value.dtype} array of shape {value.shape}"
    if isinstance(value, bytes | bytearray | memoryview):
        return f"{len(value)} bytes"
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _short(value: Any) -> str:
    text = "no value" if value is None else f"{value}"
    return text if len(text) <= _WIDTH else f"{text[:_WIDTH]}…"


@_command(
    click.option("--run", "name", metavar="NAME", help="Follow this run only."),
    click.option("--once", is_flag=True, help="Show how things stand and end."),
    click.option("--interval", type=float, default=2.0, help="Seconds between two looks."),
    click.option(
        "--patience",
        type=click.FloatRange(min=0),
        default=12 * OBSERVE_SECONDS,
        help="Seconds without a sign of life after which a run is given up.",
    ),
)
def watch(
    target: _Target, name: str | None, interval: float, patience: float, *, once: bool
) -> None:
    """Follow the runs of a lake until they end, from storage alone.

    The exit code is 1 if a run ended early or its writer is gone.
    """
    log = Log(target.store)
    followed = _followed(log.require_head(), name)
    shown: dict[str, dict[str, Any]] = {}
    heard: dict[str, tuple[Any, float]] = {}
    while True:
        newest = log.require_head()
        for run in followed:
            found = _look(log, newest, run)
            now = time.monotonic()
            sign = (found["beat"], found["epoch"], found["partitions"])
            if run not in heard or heard[run][0] != sign:
                heard[run] = (sign, now)
            elif found["state"] == "running" and now - heard[run][1] > patience:
                found["state"] = "silent"
            del found["beat"]
            if found != shown.get(run):
                target.print(found, [_watch_line(found)])
            shown[run] = found
        states = {shown[run]["state"] for run in followed}
        if once or "running" not in states:
            break
        time.sleep(interval)
    if not once and states - {"finished", "overwritten"}:
        click.echo(
            "Not every run was finished: start it again with mode='resume' to go on.", err=True
        )
        raise click.exceptions.Exit(1)


def _followed(head: Commit, name: str | None) -> list[str]:
    if name is not None:
        if name not in head.runs:
            known = ", ".join(map(repr, head.runs)) or "none"
            raise VersionNotFoundError(f"The lake has no run {name!r}. Its runs: {known}.")
        return [name]
    runs = _written(head)
    return [run for run in runs if _state(head.runs[run]) == "unfinished"] or runs[-1:]


def _look(log: Log, head: Commit, name: str) -> dict[str, Any]:
    """Return how a run stands, by the log and its heartbeat."""
    found = _run(head, name)
    state = head.runs[name]
    beat = newest_heartbeat(log.store, log.branch, name)
    if beat is not None and beat.epoch < state.epoch:
        beat = None  # of a coordinator that another has replaced
    if found["state"] == "unfinished":
        stopped = beat is not None and beat.state != "running"
        found["state"] = "stopped" if stopped else "running"
    found["version"] = head.version
    found["written"] = max(state.inputs, beat.inputs if beat else 0)
    found["failures"] = max(state.failures, beat.failures if beat else 0)
    found["trouble"] = beat.trouble if beat else ""
    found["beat"] = beat
    return found


def _watch_line(run: Mapping[str, Any]) -> str:
    of = f" of {run['planned']:,}" if run["planned"] else ""
    late = f"; commits are late: {run['trouble']}" if run["trouble"] else ""
    return (
        f"run {run['run']}: {run['state']}, {run['written']:,}{of} samples written, "
        f"{run['inputs']:,} committed ({run['percent']:g} %), {run['failures']:,} failed, "
        f"version {run['version']}{late}"
    )


@_command(
    click.option("--force", is_flag=True, help="Also close runs that are being written."),
    click.option("--dry-run", is_flag=True, help="Only show what would be done."),
)
def reset(target: _Target, *, force: bool, dry_run: bool) -> None:
    """Delete what unfinished runs wrote and did not commit.

    Everything committed stays, and each run can be resumed afterwards.
    """
    store = target.store
    with make_count_bar(target.progress, "reset", "objects") as watch:
        report = resetting.reset(store, Log(store), force=force, dry_run=dry_run, on_status=watch)
    lines = [
        f"{'Would close' if dry_run else 'Closed'} run {home.partition('/')[2]} up to epoch {epoch}"
        for home, epoch in report.closed.items()
    ]
    target.print(asdict(report), [*lines, *_deleted(report)])


def _deleted(report: resetting.ResetReport | vacuuming.VacuumReport) -> list[str]:
    """Return what people read of the objects that were deleted."""
    shown = report.objects if report.dry_run else report.objects[:_SHOWN]
    lines = [f"  {key}" for key in shown]
    if len(shown) < len(report.objects):
        lines.append(f"  … and {len(report.objects) - len(shown):,} more")
    uploads = f" and {report.uploads:,} unfinished uploads" if report.uploads else ""
    verb = "Would delete" if report.dry_run else "Deleted"
    size = format_bytes(report.bytes)
    return [*lines, f"{verb} {len(report.objects):,} objects, {size}{uploads}"]


@_command(
    click.option(
        "--older-than",
        default="7d",
        metavar="AGE",
        help="Keep versions that were the newest less than this time ago, such as 30d or 12h; 0d "
        "for none of them.",
    ),
    click.option("--dry-run", is_flag=True, help="Only show what would be done."),
)
def vacuum(target: _Target, older_than: str, *, dry_run: bool) -> None:
    """Give up old versions and delete what nothing else needs.

    The newest version and those with a tag are always kept. Runs may go on meanwhile.
    """
    store, age = target.store, parse_age(older_than)
    with make_count_bar(target.progress, "vacuum", "objects") as watch:
        report = vacuuming.vacuum(
            store, Log(store), older_than=age, dry_run=dry_run, on_status=watch
        )
    lines = [
        f"{'Would give up' if dry_run else 'Gave up'} {len(versions):,} versions of {branch}"
        for branch, versions in report.expired.items()
    ]
    target.print(asdict(report), [*lines, *_deleted(report)])


@_command(
    click.option("--chunk-size", default="64 MiB", metavar="SIZE", help="Most bytes of a chunk."),
)
def compact(target: _Target, chunk_size: str) -> None:
    """Join small chunks of finished runs into full ones.

    Samples and their order stay. The small chunks are deleted by the next vacuum.
    """
    store, size = target.store, parse_size(chunk_size)
    with make_count_bar(target.progress, "compact", "chunks") as watch:
        report = compacting.compact(store, Log(store), chunk_size=size, on_status=watch)
    line = "Nothing to join"
    if report.version is not None:
        line = (
            f"Joined {report.joined:,} chunks into {report.into:,}, {format_bytes(report.bytes)}, "
            f"as version {report.version}"
        )
    target.print(asdict(report), [line])


@_command(
    click.option("--quick", is_flag=True, help="Read only sizes and heads of the chunks."),
)
def verify(target: _Target, *, quick: bool) -> None:
    """Read every version again and compare all checksums.

    The exit code is 1 if anything is damaged.
    """
    store = target.store
    report = verifying.verify(store, Log(store), quick=quick)
    lines = []
    for bad in report.damaged:
        where = f"version {bad.version}" if bad.version is not None else "no version"
        rows = f", rows {bad.rows[0]} to {bad.rows[1] - 1}" if bad.rows else ""
        lines.append(f"damaged: {bad.key}: {bad.problem} ({bad.branch}, {where}{rows})")
    lines.append(
        f"{report.versions:,} versions, {report.segments:,} tables, {report.chunks:,} chunks, "
        f"{report.samples:,} samples, {format_bytes(report.bytes)}: "
        + ("all is well" if report.ok else f"{len(report.damaged):,} objects are damaged")
    )
    target.print({**asdict(report), "ok": report.ok}, lines)
    if not report.ok:
        raise click.exceptions.Exit(1)


if __name__ == "__main__":
    main()
