"""Command line: ``dasklake …``, and ``dask lake …``.

Exit codes: 0, success; 1, an error or damage; 2, invalid usage.
"""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import click
from dask.utils import format_bytes

from dasklake._api.configuration import open_store
from dasklake._api.formatting import (
    History,
    commit_document,
    damage_text,
    deletion_lines,
    plain_value,
    run_document,
    run_text,
    value_text,
)
from dasklake._api.lake import Lake
from dasklake._api.lake import open as open_lake
from dasklake._log.heartbeat import OBSERVE_SECONDS, newest_heartbeat
from dasklake._log.log import Log
from dasklake._maintenance.verify import verify as verify_lake
from dasklake._model.commit import Commit
from dasklake._read.undecodable import find_undecodable
from dasklake.creds import StorageOptions
from dasklake.exceptions import LakeError, VersionNotFoundError


@dataclass(frozen=True, slots=True)
class _Target:
    """The lake of a command, and the output format."""

    url: str
    storage_options: StorageOptions
    as_json: bool

    def open(self) -> Lake:
        """Open the newest version."""
        return open_lake(self.url, storage_options=self.storage_options)

    def log(self) -> Log:
        """Return the log, without opening a version."""
        return Log(open_store(self.url, self.storage_options))

    @property
    def progress(self) -> bool | Literal["auto"]:
        """The ``progress`` argument of the methods of :class:`Lake`."""
        return False if self.as_json else "auto"

    def print(self, document: Mapping[str, Any], *lines: str) -> None:
        """Print a JSON document, or lines of text."""
        if self.as_json:
            lines = (json.dumps(document, ensure_ascii=False, default=str),)
        for line in lines:
            click.echo(line)


@click.group("lake", context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="dasklake", prog_name="dasklake")
def cli() -> None:
    """Inspect lakes of samples, follow their runs, clean them up and verify them.

    URL is a path or any URL that fsspec supports, such as s3://bucket/lake.

    Exit codes: 0, success; 1, an error or damage; 2, invalid usage.
    """


def main() -> None:
    """Run the command line as ``dasklake``."""
    cli(prog_name="dasklake")


def _parse_options(
    _: click.Context, __: click.Parameter, values: tuple[str, ...]
) -> dict[str, Any]:
    """Parse NAME=VALUE pairs. A value that is valid JSON is decoded."""
    options: dict[str, Any] = {}
    for pair in values:
        name, separator, value = pair.partition("=")
        if not separator or not name:
            raise click.BadParameter(f"{name!r} is not of the form NAME=VALUE.")
        try:
            options[name] = json.loads(value)
        except ValueError:
            options[name] = value
    return options


_OPTIONS = (
    click.option("--debug", is_flag=True, help="Show the traceback of an error."),
    click.option("--json", "as_json", is_flag=True, help="Print JSON."),
    click.option(
        "-o",
        "--option",
        multiple=True,
        metavar="NAME=VALUE",
        callback=_parse_options,
        help="Storage option, such as anon=true; repeatable. Not for secrets: other users of the "
        "machine can see them.",
    ),
    click.option(
        "--creds",
        metavar="KEY",
        help="Read the storage options from dasklake.creds.KEY in the Dask configuration.",
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
                # Users of a shell expect one line, not a traceback.
                if debug:
                    raise
                message = f"{error}"
                if not isinstance(error, LakeError):
                    message = (
                        f"Unexpected {type(error).__name__}: {error}. Use --debug for details."
                    )
                if as_json:
                    document = {"error": message, "code": getattr(error, "code", "unexpected")}
                    click.echo(json.dumps(document, ensure_ascii=False), err=True)
                else:
                    click.echo(f"Error: {message}", err=True)
                raise SystemExit(1) from None

        command: Callable[..., None] = call
        for decorator in (*reversed(options), *_OPTIONS):
            command = decorator(command)
        return cli.command(function.__name__)(command)

    return decorate


_DRY_RUN = click.option("--dry-run", is_flag=True, help="Only show what would be done.")


@_command()
def info(target: _Target) -> None:
    """Show the tensors of a lake, its size and its runs."""
    lake = target.open()
    runs = [run_document(lake.commit, name) for name in _write_runs(lake.commit)]
    document = {
        "url": lake.url,
        "version": lake.version,
        "time": lake.commit.time.isoformat(),
        "is_complete": lake.is_complete,
        **asdict(lake.commit.totals),
        "schema": lake.schema.to_json(),
        "runs": runs,
    }
    target.print(document, repr(lake), *map(run_text, runs))


def _write_runs(head: Commit) -> list[str]:
    """Return the names of the runs that write samples: all but compactions."""
    return [name for name, run in head.runs.items() if not run.plan.compaction]


@_command(
    click.option("-n", "--max-count", type=click.IntRange(min=1), help="Number of versions."),
    click.option("--all", "entries", is_flag=True, help="Include versions that add no samples."),
)
def log(target: _Target, max_count: int | None, *, entries: bool) -> None:
    """Show the versions of a lake, newest first."""
    for commit in target.open().log(entries=entries, max_count=max_count):
        target.print(commit_document(commit), f"{History([commit])}", "")


@_command(
    click.option("-n", "--count", type=click.IntRange(min=0), default=5, help="Number of samples."),
    click.option("-c", "--column", "columns", multiple=True, help="Tensor to show; repeatable."),
)
def head(target: _Target, count: int, columns: tuple[str, ...]) -> None:
    """Show the first samples of a lake."""
    lake = target.open()
    names = columns or tuple(lake.schema)
    values = [lake[name][: min(count, len(lake))] for name in names]
    for row, sample in enumerate(zip(*values, strict=True)):
        plain = {name: plain_value(value) for name, value in zip(names, sample, strict=True)}
        lines = (f"  {name}: {value_text(value)}" for name, value in plain.items())
        target.print({"row": row, **plain}, f"{row}:", *lines)


@_command(
    click.option("--run", "name", metavar="NAME", help="Follow only this run."),
    click.option("--once", is_flag=True, help="Show the current state and exit."),
    click.option("--interval", type=float, default=2.0, help="Seconds between two updates."),
    click.option(
        "--timeout",
        type=click.FloatRange(min=0),
        default=12 * OBSERVE_SECONDS,
        help="Seconds without a heartbeat after which a run is reported as silent.",
    ),
)
def watch(
    target: _Target, name: str | None, interval: float, timeout: float, *, once: bool
) -> None:
    """Follow the runs of a lake until they end. Only storage is read.

    The exit code is 1 if a run did not finish, or its writer has stopped responding.
    """
    # The heartbeats and the newest commit are read every few seconds: a Lake would build a reader
    # for each version.
    log = target.log()
    runs = _runs_to_watch(log.require_head(), name)
    printed: dict[str, dict[str, Any]] = {}
    changes: dict[str, tuple[Any, float]] = {}
    while True:
        newest = log.require_head()
        for run in runs:
            document, progress = _observe(log, newest, run)
            now = time.monotonic()
            if run not in changes or changes[run][0] != progress:
                changes[run] = (progress, now)
            elif document["state"] == "running" and now - changes[run][1] > timeout:
                document["state"] = "silent"
            if document != printed.get(run):
                target.print(document, _watch_text(document))
            printed[run] = document
        states = {printed[run]["state"] for run in runs}
        if once or "running" not in states:
            break
        time.sleep(interval)
    if not once and states - {"finished", "overwritten"}:
        click.echo("A run did not finish. Continue it with mode='resume'.", err=True)
        raise click.exceptions.Exit(1)


def _runs_to_watch(head: Commit, name: str | None) -> list[str]:
    """Return the named run, or the unfinished runs, or the newest run."""
    if name is not None:
        if name not in head.runs:
            names = ", ".join(map(repr, head.runs)) or "none"
            raise VersionNotFoundError(f"The lake has no run {name!r}. Its runs: {names}.")
        return [name]
    runs = _write_runs(head)
    return [run for run in runs if run_document(head, run)["state"] == "unfinished"] or runs[-1:]


def _observe(log: Log, head: Commit, name: str) -> tuple[dict[str, Any], Any]:
    """Return the state of a run from its log and heartbeat, and a value that changes with it."""
    run = head.runs[name]
    document = run_document(head, name)
    beat = newest_heartbeat(log.store, log.branch, name)
    if beat is not None and beat.epoch < run.epoch:
        beat = None  # of a coordinator that was replaced
    if document["state"] == "unfinished":
        document["state"] = "stopped" if beat and beat.state != "running" else "running"
    document |= {
        "version": head.version,
        "written": max(run.inputs, beat.inputs if beat else 0),
        "failures": max(run.failures, beat.failures if beat else 0),
        "trouble": beat.trouble if beat else "",
    }
    return document, (beat, run.epoch, run.partitions)


def _watch_text(run: Mapping[str, Any]) -> str:
    total = f" of {run['planned']:,}" if run["planned"] else ""
    trouble = f"; commits are late: {run['trouble']}" if run["trouble"] else ""
    return (
        f"run {run['run']}: {run['state']}, {run['written']:,}{total} samples written, "
        f"{run['inputs']:,} committed ({run['percent']:g} %), {run['failures']:,} failed, "
        f"version {run['version']}{trouble}"
    )


@_command(
    click.option("--force", is_flag=True, help="Also close runs that are being written."),
    _DRY_RUN,
)
def reset(target: _Target, *, force: bool, dry_run: bool) -> None:
    """Close unfinished runs and delete their uncommitted objects.

    Committed samples are kept, and each run can be resumed afterwards.
    """
    report = target.open().reset(force=force, dry_run=dry_run, progress=target.progress)
    verb = "Would close" if dry_run else "Closed"
    closed = (f"{verb} run {home.partition('/')[2]}" for home in report.closed)
    target.print(asdict(report), *closed, *deletion_lines(report))


@_command(
    click.option(
        "--older-than",
        default="7d",
        metavar="AGE",
        help="Keep versions that were the newest less than this time ago, such as 30d or 12h. With "
        "0d, keep only the newest.",
    ),
    _DRY_RUN,
)
def vacuum(target: _Target, older_than: str, *, dry_run: bool) -> None:
    """Expire old versions and delete the objects that only they need.

    The newest version and tagged versions are always kept. Runs may be active.
    """
    report = target.open().vacuum(older_than=older_than, dry_run=dry_run, progress=target.progress)
    verb = "Would expire" if dry_run else "Expired"
    counts = ((branch, len(versions)) for branch, versions in report.expired.items())
    expired = (f"{verb} {count:,} versions of {branch}" for branch, count in counts)
    target.print(asdict(report), *expired, *deletion_lines(report))


@_command(
    click.option("--chunk-size", metavar="SIZE", help="Maximum size of a chunk."),
)
def compact(target: _Target, chunk_size: str | None) -> None:
    """Join small chunks of finished runs into full ones.

    Samples and their order do not change. The next vacuum deletes the small chunks.
    """
    report = target.open().compact(chunk_size=chunk_size, progress=target.progress)
    line = "Nothing to join"
    if report.version is not None:
        line = (
            f"Joined {report.joined:,} chunks into {report.into:,}, {format_bytes(report.bytes)}, "
            f"as version {report.version}"
        )
    target.print(asdict(report), line)


@_command(
    click.option("--quick", is_flag=True, help="Read only the sizes and headers of chunks."),
    click.option("--decode", is_flag=True, help="Also decode every stored image and media file."),
)
def verify(target: _Target, *, quick: bool, decode: bool) -> None:
    """Read every version and compare all checksums.

    The exit code is 1 if anything is damaged.
    """
    # Not Lake.verify: a lake whose newest commit is damaged cannot be opened.
    log = target.log()
    find = find_undecodable if decode else None
    report = verify_lake(log.store, log, quick=quick, decode=find)
    summary = (
        f"{report.versions:,} versions, {report.segments:,} tables, {report.chunks:,} chunks, "
        f"{report.samples:,} samples, {format_bytes(report.bytes)}: "
        + ("no damage found" if report.ok else f"{len(report.damaged):,} objects are damaged")
    )
    target.print({**asdict(report), "ok": report.ok}, *map(damage_text, report.damaged), summary)
    if not report.ok:
        raise click.exceptions.Exit(1)


if __name__ == "__main__":
    main()
