"""Test the output and the exit code of each command."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import click
import dask
import numpy as np
import pytest
from click.testing import Result
from dask.cli import _register_command_ep

from dasklake._api import cli as command_line
from dasklake._api.cli import cli
from dasklake._api.formatting import plain_value, value_text
from dasklake._format import object_keys
from dasklake._format.heartbeat import Heartbeat, heartbeat_bytes
from dasklake._schema.values import Link
from dasklake._storage.store import ObjectStore
from dasklake.exceptions import LakeNotFoundError
from tests.support.cli import cli_runner
from tests.support.lakes import SmallLake, failure
from tests.support.s3 import SECRET, S3Bucket

COMMANDS = ("compact", "head", "info", "log", "reset", "vacuum", "verify", "watch")


def call(*args: object, code: int = 0) -> Result:
    """Run the command line and check its exit code."""
    result = cli_runner().invoke(cli, [str(arg) for arg in args])
    assert result.exit_code == code, result.output
    return result


def documents(*args: object, code: int = 0) -> list[dict[str, Any]]:
    """Run the command line with --json."""
    return [json.loads(line) for line in call(*args, "--json", code=code).stdout.splitlines()]


@pytest.fixture
def lake(small_lake: SmallLake) -> SmallLake:
    """Make a lake with an unfinished run: three of four partitions, a failure, a leftover."""
    writer = small_lake.begin("run", 4)
    writer.commit([small_lake.write(writer, 0), small_lake.write(writer, 1)], [])
    writer.commit([small_lake.write(writer, 2, [[7]])], [failure("run", 2, 1)])
    small_lake.write(writer, 3)
    return small_lake


@pytest.fixture
def url(lake: SmallLake) -> str:
    """Return the URL of the lake."""
    return lake.store.url


def test_commands_are_complete() -> None:
    """All commands exist, have a help text, and take --json and --debug."""
    assert tuple(sorted(cli.commands)) == COMMANDS
    for name in COMMANDS:
        shown = call(name, "--help").stdout
        assert "--json" in shown
        assert "--debug" in shown
        assert cli.commands[name].help


def test_dask_finds_it() -> None:
    """`dask lake` is the same group."""
    dask_cli = click.Group("dask")
    _register_command_ep(dask_cli, EntryPoint("lake", "dasklake._api.cli:cli", "dask_cli"))
    shown = cli_runner().invoke(dask_cli, ["lake", "--help"])
    assert shown.exit_code == 0
    assert "verify" in shown.stdout


def test_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """The version of the package is printed."""
    monkeypatch.setattr("importlib.metadata.version", lambda name: f"1.2.3 of {name}")
    assert call("--version").stdout == "dasklake, version 1.2.3 of dasklake\n"


def test_info(url: str) -> None:
    """A lake is shown with its tensors, counts and runs."""
    shown = call("info", url).stdout
    assert f"Lake('{url}', version=3)" in shown
    assert "int64" in shown
    assert "run run: unfinished, 75 %, 7 samples, 1 failed, 3 of 4 partitions" in shown
    [document] = documents("info", url)
    assert (document["version"], document["samples"], document["failures"]) == (3, 7, 1)
    assert document["is_complete"] is False
    assert document["runs"][0]["percent"] == 75
    assert document["schema"] == {"x": {"dtype": "int64", "htype": "generic", "shape": []}}


def test_log(url: str) -> None:
    """Versions with samples are shown newest first; other entries on request."""
    assert [entry["version"] for entry in documents("log", url)] == [3, 2, 0]
    assert [entry["version"] for entry in documents("log", url, "-n", 1)] == [3]
    entries = documents("log", url, "--all")
    assert [entry["kind"] for entry in entries] == ["data", "data", "begin", "init"]
    shown = call("log", url).stdout
    assert "after 75% progress" in shown
    assert "Total samples processed: 7" in shown


def test_head(url: str) -> None:
    """The first samples are shown, one by one."""
    assert call("head", url, "-n", 2).stdout == "0:\n  x: 0\n1:\n  x: 1\n"
    assert documents("head", url, "-c", "x", "-n", 100)[-1] == {"row": 6, "x": 7}
    assert call("head", url, "-n", 0).stdout == ""
    assert "no tensor 'y'" in call("head", url, "-c", "y", code=1).stderr


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ("text", "text"),
        (np.float32(1.5), 1.5),
        (np.bool_(True), True),  # noqa: FBT003 # a value
        (np.datetime64("2026-01-02"), "2026-01-02"),
        (np.zeros((2, 2), "uint8"), [[0, 0], [0, 0]]),
        (np.zeros((9, 9), "uint8"), "uint8 array of shape (9, 9)"),
        (b"12345", "5 bytes"),
        (Link("s3://bucket/x.jpg", "key"), "s3://bucket/x.jpg"),
    ],
)
def test_values_are_plain(value: Any, expected: Any) -> None:
    """A value is shown as JSON; a large value is described."""
    assert plain_value(value) == expected


def test_long_texts_are_cut() -> None:
    """A long value is cut for people."""
    assert value_text("x" * 500) == "x" * 100 + "…"
    assert value_text(None) == "no value"


def test_reset(lake: SmallLake, url: str) -> None:
    """A dry run shows the objects and changes nothing; a reset deletes them, a second one nothing."""
    before = lake.objects()
    [planned] = documents("reset", url, "--dry-run")
    assert lake.objects() == before
    assert planned["closed"] == {"main/run": 1}
    assert planned["dry_run"] is True
    shown = call("reset", url, "--dry-run").stdout
    assert "Would close run run\n" in shown
    assert planned["objects"][0] in shown
    assert "Deleted 1 objects" in call("reset", url).stdout
    assert before - lake.objects() == set(planned["objects"])
    [nothing] = documents("reset", url)
    assert nothing == {"closed": {}, "objects": [], "bytes": 0, "dry_run": False, "uploads": 0}


def test_vacuum(small_lake: SmallLake) -> None:
    """A dry run shows the objects and changes nothing; a vacuum keeps young versions."""
    url = small_lake.store.url
    for run, overwrite in (("old", False), ("new", True)):
        writer = small_lake.begin(run, 1, overwrite=overwrite)
        writer.commit([small_lake.write(writer, 0)], [])
    before = small_lake.objects()
    assert documents("vacuum", url)[0]["objects"] == []
    [planned] = documents("vacuum", url, "--older-than", "0d", "--dry-run")
    assert small_lake.objects() == before
    assert planned["expired"] == {"main": [0, 1, 2, 3]}
    assert len(planned["objects"]) == 2
    shown = call("vacuum", url, "--older-than", "0d", "--dry-run").stdout
    assert "Would expire 4 versions of main" in shown
    assert planned["objects"][0] in shown
    assert "Deleted 2 objects" in call("vacuum", url, "--older-than", "0d").stdout
    assert before - small_lake.objects() == set(planned["objects"])
    for age in ("nonsense", "30", "-1d", "NaT"):
        assert "older_than must be" in call("vacuum", url, f"--older-than={age}", code=1).stderr


def test_compact(small_lake: SmallLake) -> None:
    """Small chunks are joined; the compaction is not listed among the runs."""
    url = small_lake.store.url
    writer = small_lake.begin("run", 1)
    writer.commit([small_lake.write(writer, 0, [[1], [2], [3]])], [])
    assert "Joined 3 chunks into 1" in call("compact", url, "--chunk-size", "1 MiB").stdout
    assert "Nothing to join" in call("compact", url).stdout
    assert documents("compact", url)[0]["version"] is None
    assert [run["run"] for run in documents("info", url)[0]["runs"]] == ["run"]
    assert call("watch", url).stdout.startswith("run run: finished")
    assert "finished" in call("watch", url, "--once").stdout


def test_verify(lake: SmallLake, url: str) -> None:
    """An undamaged lake is shown with counts; damage with rows and exit code 1."""
    assert "7 samples" in call("verify", url).stdout
    assert "no damage found" in call("verify", url, "--quick").stdout
    [key] = [key for key, _ in lake.store.walk("data") if "/2-1-" in key]
    lake.store.delete([key])
    assert f"damaged: {key}: it is missing (main, version 3, rows 6 to 6)" in (
        call("verify", url, code=1).stdout
    )
    [document] = documents("verify", url, code=1)
    assert document["ok"] is False
    assert document["damaged"][0]["rows"] == [6, 7]


def step_by_step(monkeypatch: pytest.MonkeyPatch, *steps: Callable[[], object]) -> None:
    """Take one step whenever the observer would wait."""
    remaining = iter(steps)
    monkeypatch.setattr("dasklake._api.cli.time.sleep", lambda _: next(remaining, lambda: None)())


def beat(lake: SmallLake, counter: int, state: str = "running", **fields: Any) -> None:
    """Write a heartbeat."""
    heartbeat = Heartbeat(1, "coordinator", counter, state, **fields)
    lake.store.put(object_keys.heartbeat_key("main", "run"), heartbeat_bytes(heartbeat))


def test_watch(small_lake: SmallLake, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run is followed from storage alone, and the command ends with it."""
    writer = small_lake.begin("run", 2)
    first, second = (small_lake.write(writer, number) for number in (0, 1))
    step_by_step(
        monkeypatch,
        lambda: beat(small_lake, 1, inputs=3),
        lambda: writer.commit([first], []),
        lambda: beat(small_lake, 2, inputs=6, failures=1),
        lambda: beat(small_lake, 3, inputs=6, failures=1),
        lambda: writer.commit([second], []),
    )
    states = documents("watch", small_lake.store.url)
    assert [(f["written"], f["inputs"], f["percent"]) for f in states] == [
        (0, 0, 0),
        (3, 0, 0),
        (3, 3, 50),
        (6, 3, 50),
        (6, 6, 100),
    ]
    assert [f["state"] for f in states] == ["running"] * 4 + ["finished"]
    assert states[-1]["failures"] == 1


def test_watch_once(lake: SmallLake, url: str) -> None:
    """With --once, the current state is shown."""
    beat(lake, 1, inputs=10, failures=2)
    assert call("watch", url, "--once").stdout == (
        "run run: running, 10 samples written, 7 committed (75 %), 2 failed, version 3\n"
    )


def test_watch_stopped_run(lake: SmallLake, url: str) -> None:
    """A run whose coordinator has stopped ends the command with exit code 1."""
    beat(lake, 5, "stopped")
    result = call("watch", url, code=1)
    assert "run run: stopped" in result.stdout
    assert "mode='resume'" in result.stderr


def test_watch_reports_silent_runs(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run without a heartbeat is reported as silent after the timeout."""
    step_by_step(monkeypatch)
    result = call("watch", url, "--timeout", 0, code=1)
    assert "run run: silent" in result.stdout


def test_watch_names_runs(url: str) -> None:
    """A run is followed by its name; the error for an unknown name lists the runs."""
    assert call("watch", url, "--run", "run", "--once").stdout.startswith("run run:")
    assert "Its runs: 'run'" in call("watch", url, "--run", "other", code=1).stderr


def test_finished_run_is_not_waited_for(small_lake: SmallLake) -> None:
    """If no run is unfinished, the last one is shown, with exit code 0."""
    writer = small_lake.begin("run", 1)
    writer.commit([small_lake.write(writer, 0)], [])
    assert "finished" in call("watch", small_lake.store.url).stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_no_lake(name: str, tmp_path: Path) -> None:
    """Without a lake, each command prints one line on standard error; the exit code is 1."""
    result = call(name, tmp_path / "none", code=1)
    assert result.stdout == ""
    assert result.stderr.startswith("Error: No lake found under")
    assert result.stderr.count("\n") == 1


def test_debug(tmp_path: Path) -> None:
    """With --debug, the error itself is raised."""
    result = cli_runner().invoke(cli, ["info", str(tmp_path / "none"), "--debug"])
    assert isinstance(result.exception, LakeNotFoundError)


def test_unexpected_error(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unexpected error is shown without a traceback, with a hint at --debug."""

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(command_line, "open_lake", fail)
    assert "Unexpected RuntimeError: a bug" in call("info", url, code=1).stderr


@pytest.mark.parametrize(
    "args",
    [
        ("nonsense",),
        ("info",),
        ("head", "url", "-n", "many"),
        ("info", "url", "-o", "no-value"),
        ("info", "url", "-o", "a=1", "--creds", "key"),
        ("log", "url", "-n", "0"),
    ],
)
def test_wrong_calls(args: tuple[str, ...]) -> None:
    """Invalid usage ends with exit code 2."""
    call(*args, code=2)


def test_storage_options(s3_bucket: S3Bucket) -> None:
    """Options are read from the configuration by their key, or given one by one."""
    store = ObjectStore(f"{s3_bucket.url}/lake", s3_bucket.options)
    SmallLake(store)
    with dask.config.set({"dasklake.creds.here": s3_bucket.options}):
        [document] = documents("info", store.url, "--creds", "here")
        assert document["version"] == 0
        assert documents("verify", store.url, "--creds", "here")[0]["ok"]
    options = [f"{name}={value}" for name, value in s3_bucket.options.items()]
    shown = call("info", store.url, *(part for option in options for part in ("-o", option)))
    assert "version=0" in shown.stdout
    assert "no credentials under the key" in call("info", store.url, "--creds", "x", code=1).stderr


def test_secrets_stay_hidden() -> None:
    """An error does not show secret options."""
    args = ["info", "s3://bucket/x", "-o", "key=k", "-o", f"secret={SECRET}", "-o", "nonsense=1"]
    assert SECRET not in call(*args, code=1).output


def test_errors_are_json_with_their_code(tmp_path: Path) -> None:
    """With --json an error is a document with its message and its code."""
    shown = call("info", tmp_path / "nothing", "--json", code=1)
    document = json.loads(shown.stderr)
    assert document["code"] == "lake-not-found"
    assert "nothing" in document["error"]
    assert shown.stdout == ""
