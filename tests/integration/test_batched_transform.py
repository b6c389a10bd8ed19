"""Transforms of blocks of rows: the same samples, failures and runs as with single items."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import dask
import dask.array as da
import dask.bag as db
import dask.base
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest

import dasklake
from dasklake.exceptions import InvalidInputError, TooManyFailuresError, TransformError
from tests.support.clusters import Front
from tests.support.dtypes import COLUMNS, REFUSED, difference, frame_of
from tests.support.hints import follows, refused
from tests.support.web import Web

SYNC = dasklake.WriteOptions(scheduler="sync")
KEPT = [name for name in COLUMNS if name not in REFUSED]
SCHEMA: Any = {"x": "int64", "root": "float64"}
COMPUTE: Any = dask.base.compute

#: Rows that :func:`roots` refuses.
BAD = (17, 18, 93)


def table(rows: int = 120, npartitions: int = 3) -> Any:
    """Return a frame of numbers, some of which have no root."""
    numbers = np.arange(rows)
    numbers[[n for n in BAD if n < rows]] *= -1
    return dd.from_pandas(pd.DataFrame({"x": numbers, "name": numbers.astype(str)}), npartitions)


def roots(block: Any, power: float = 0.5, folder: str = "") -> dict[str, Any]:
    """Return the numbers of a block and their roots."""
    if folder:
        with (Path(folder) / "calls").open("a") as file:
            file.write("".join(f"{x} " for x in block["x"]))
    if (np.asarray(block["x"]) < 0).any():
        raise ValueError("a negative number has no root")
    return {"x": block["x"], "root": block["x"] ** power}


def written(url: Any) -> list[int]:
    """Return the numbers of a lake, after checking their roots."""
    lake = dasklake.open(url)
    x = lake["x"].numpy()
    assert np.allclose(lake["root"].numpy(), np.sqrt(x))
    lake.verify()
    return [int(n) for n in x]


@pytest.fixture(autouse=True)
def _sync() -> Iterator[None]:
    with dask.config.set(scheduler="sync"):
        yield


def test_only_the_rows_that_fail_are_skipped(front: Front, tmp_path: Path) -> None:
    """A block with bad rows is written without them; each has its position, item and error."""
    report = front.write(
        table(),
        tmp_path / "lake",
        schema=SCHEMA,
        transform=roots,
        transform_kwargs={"power": 0.5},
        batched=True,
        on_error="skip",
        max_failures=None,
    )
    assert (report.samples, report.failures) == (117, 3)
    assert written(tmp_path / "lake") == [n for n in range(120) if n not in BAD]
    failures = dasklake.open(tmp_path / "lake").failures()
    assert failures["index"].tolist() == list(BAD)
    assert failures["partition"].tolist() == [0, 0, 2]
    assert failures["item"].tolist() == [f"{{'x': {-n}, 'name': '{-n}'}}" for n in BAD]
    assert set(failures["exception"]) == {"ValueError"}


@pytest.mark.parametrize("batch_size", [None, 1, 7, 1000])
def test_the_first_row_that_fails_ends_the_run(batch_size: int | None, tmp_path: Path) -> None:
    """The error names the first bad row for each size of the blocks."""
    with pytest.raises(TransformError, match="index 17 of the input data") as caught:
        table().to_lake(
            tmp_path / "lake",
            schema=SCHEMA,
            transform=roots,
            batched=True,
            batch_size=batch_size,
        )
    assert (caught.value.partition, caught.value.position) == (0, 17)
    assert "no root" in str(caught.value)


def test_a_resume_writes_the_rest(front: Front, tmp_path: Path) -> None:
    """Complete partitions are committed, and a resume with a repaired function writes the others."""
    job: dict[str, Any] = {"schema": SCHEMA, "run": "job", "batched": True, "checkpoint_every": 1}
    with pytest.raises(TransformError):
        front.write(table(), tmp_path / "lake", transform=roots, **job)

    def repaired(block: Any) -> Any:
        return roots(block.assign(x=block["x"].abs()))

    report = front.write(table(), tmp_path / "lake", transform=repaired, mode="resume", **job)
    assert report.samples == 120
    assert sorted(written(tmp_path / "lake")) == list(range(120))


def test_too_many_failures_end_the_run(tmp_path: Path) -> None:
    """Rows that are skipped count for ``max_failures``."""
    with pytest.raises(TooManyFailuresError, match="no root"):
        table().to_lake(
            tmp_path / "lake",
            schema=SCHEMA,
            transform=roots,
            batched=True,
            on_error="skip",
            max_failures=2,
        )


def test_failed_rows_are_retried_in_blocks(tmp_path: Path) -> None:
    """A retry passes the failed items as columns, to a batched function as well."""
    table().to_lake(
        tmp_path / "lake",
        schema=SCHEMA,
        transform=roots,
        batched=True,
        on_error="skip",
        max_failures=None,
    )
    lake = dasklake.open(tmp_path / "lake")
    report = lake.retry_failures(
        lambda block: roots(pd.DataFrame(block)[["x"]].abs()), batched=True, options=SYNC
    )
    assert report is not None
    assert report.samples == 3
    assert written(tmp_path / "lake")[-3:] == list(BAD)


def test_a_preview_tries_blocks(tmp_path: Path) -> None:
    """A preview of a batched job counts rows, and lists those that fail."""
    preview = table().to_lake(
        tmp_path / "lake", schema=SCHEMA, transform=roots, batched=True, preview=20
    )
    assert (preview.inputs, preview.samples, preview.total) == (20, 18, 120)
    assert [failure.index for failure in preview.failures] == [17, 18]
    assert not (tmp_path / "lake").exists()


def test_lazy_writes_share_their_input(tmp_path: Path) -> None:
    """Two lazy batched writes compute each partition once, and call the function once for a row."""

    def note(part: Any) -> Any:
        with (tmp_path / "input").open("a") as file:
            file.write(f"{len(part)} ")
        return part.assign(x=part["x"].abs())

    frame = table().map_partitions(note, meta=table()._meta)
    job = {"schema": SCHEMA, "transform": roots, "batched": True, "compute": False}
    lazy = [
        dasklake.to_lake(frame, tmp_path / name, transform_kwargs={"folder": str(tmp_path)}, **job)
        for name in ("a", "b")
    ]
    COMPUTE(*lazy)
    assert (tmp_path / "input").read_text() == "40 40 40 "
    assert written(tmp_path / "a") == written(tmp_path / "b") == list(range(120))
    called = (tmp_path / "calls").read_text().split()
    assert sorted(map(int, called)) == sorted([*range(120), *range(120)])


def test_dtypes_of_a_frame_pass_through_blocks() -> None:
    """A function that returns its block writes what a write without a function does."""
    frame, url = frame_of(KEPT), f"memory://{uuid4().hex}"
    for kind, block in (("frame", lambda b: b), ("dict", dict)):
        frame.to_lake(f"{url}/{kind}", transform=block, batched=True, options=SYNC)
        back = dasklake.read_lake(f"{url}/{kind}", index=False).compute()
        assert difference(frame.compute(), back) == ""


def test_the_index_of_a_frame_is_a_column_of_the_block(tmp_path: Path) -> None:
    """Index levels with tensors are columns, and rows are numbered from 0 in each block."""
    data = pd.DataFrame(
        {"x": range(30)}, index=pd.Index([f"k{n:02}" for n in range(30)], name="key")
    )

    def check(block: Any) -> Any:
        assert block.index.tolist() == list(range(len(block)))
        block["x"] += 1
        return block

    frame = dd.from_pandas(data, npartitions=2)
    frame.to_lake(tmp_path / "lake", transform=check, batched=True)
    back = dasklake.read_lake(tmp_path / "lake").compute()
    assert back.index.tolist() == data.index.tolist()
    assert back["x"].tolist() == list(range(1, 31))
    assert frame.compute()["x"].tolist() == list(range(30))


def test_bags_and_arrays_are_passed_as_arrays(tmp_path: Path) -> None:
    """Mappings become a dict of arrays, other items one array, and arrays stay arrays."""
    kinds: list[str] = []

    def note(block: Any) -> Any:
        columns = block if isinstance(block, dict) else {"x": block}
        kinds.extend(f"{name} {column.dtype}" for name, column in columns.items())
        return {"x": columns["x"] * 2}

    collections = {
        "mappings": db.from_sequence([{"x": n, "y": [n] * 2} for n in range(25)], npartitions=1),
        "items": db.from_sequence(range(25), npartitions=1),
        "array": da.arange(25, chunks=25),
        "arrays": {"x": da.arange(25, chunks=25), "z": da.zeros((25, 2), chunks=25)},
    }
    for name, collection in collections.items():
        dasklake.to_lake(
            collection,
            tmp_path / name,
            schema={"x": "int64"},
            transform=note,
            batched=True,
            batch_size=25,
            options=SYNC,
        )
        assert dasklake.open(tmp_path / name)["x"][24] == 48
    assert kinds == ["x int64", "y object", "x int64", "x int64", "x int64", "z float64"]


def test_results_may_have_any_number_of_rows(tmp_path: Path) -> None:
    """A block may become no rows or more rows; they are written in order, with optional tensors."""

    def odd_twice(block: Any) -> Any:
        return {"x": np.repeat(block[block % 2 == 1], 2)}

    schema = {"x": "int64", "note": dasklake.TensorSpec("text", optional=True)}
    report = db.from_sequence(range(20), npartitions=2).to_lake(
        tmp_path / "lake", schema=schema, transform=odd_twice, batched=True, batch_size=1
    )
    assert report.samples == 20
    lake = dasklake.open(tmp_path / "lake")
    assert list(lake["x"].numpy()) == [n for n in range(20) if n % 2 for _ in range(2)]
    assert lake[3]["note"] is None


@pytest.mark.parametrize("tensors", ["image", "arrow"])
def test_samples_of_a_lake_are_passed_through(tensors: str, tmp_path: Path) -> None:
    """Values of a lake that a function does not use are copied as they are stored."""
    samples = [
        {"image": np.full((6, 8, 3), 9 * n, "uint8"), "tags": {"n": n}, "n": n} for n in range(25)
    ]
    schema: Any = {
        "image": dasklake.TensorSpec("image", compression="jpeg"),
        "tags": "json",
        "n": "int64",
    }
    db.from_sequence(samples, npartitions=2).to_lake(tmp_path / "lake", schema=schema)
    lake = dasklake.open(tmp_path / "lake")

    def renumbered(block: Any) -> Any:
        block["n"] = block["n"] + 100
        return block

    source = lake.to_dask_bag() if tensors == "image" else dasklake.read_lake(lake.url)
    job: dict[str, Any] = {"schema": lake.schema, "transform": renumbered, "batched": True}
    dasklake.to_lake(source, tmp_path / "copy", options=SYNC, **job)
    copy = dasklake.open(tmp_path / "copy")
    assert list(copy["n"].numpy()) == list(range(100, 125))
    assert [copy["image"].bytes(n) for n in range(25)] == [
        lake["image"].bytes(n) for n in range(25)
    ]
    assert copy[24]["tags"] == {"n": 24}


def test_dead_links_fail_alone_and_are_read_once(web: Web, tmp_path: Path) -> None:
    """Each dead link is a failure of its row, and a block that is divided verifies no link again."""
    kinds = ["good", "good", "dead", "good", "text", "good", "good", "cut"]
    urls = [f"{web.url}/{kind}/batched-{n}.jpg" for n, kind in enumerate(kinds)]
    schema: Any = {"image": dasklake.TensorSpec("link[image]", compression="jpeg"), "n": "int64"}
    before = web.requests()
    report = db.from_sequence(enumerate(urls), npartitions=1).to_lake(
        tmp_path / "lake",
        schema=schema,
        transform=lambda block: {"image": [url for _, url in block], "n": [n for n, _ in block]},
        batched=True,
        on_error="skip",
        max_failures=None,
    )
    requests = web.requests() - before
    assert (report.samples, report.failures) == (5, 3)
    lake = dasklake.open(tmp_path / "lake")
    assert list(lake["n"].numpy()) == [0, 1, 3, 5, 6]
    assert np.array(lake["image"].shapes()).tolist() == [[240, 320, 3]] * 5
    assert lake.failures()["index"].tolist() == [2, 4, 7]
    assert requests <= 3 * len(urls)


@pytest.mark.parametrize("shape", [(), None])
def test_a_block_is_divided_into_chunks(shape: Any, tmp_path: Path) -> None:
    """Columns that are encoded at once and labels that are found one by one keep their rows."""
    names = [f"name {n % 7}" for n in range(500)]
    label = dasklake.TensorSpec("class_label", shape=shape, discover=True)
    bag = db.from_sequence(list(enumerate(names)), npartitions=1)
    bag.to_lake(
        tmp_path / "lake",
        schema={"x": "int64", "label": label},
        transform=lambda block: {"x": [n for n, _ in block], "label": [name for _, name in block]},
        batched=True,
        batch_size=500,
        options=dasklake.WriteOptions(scheduler="sync", chunk_size="1 kB"),
    )
    lake = dasklake.open(tmp_path / "lake")
    assert lake.schema["label"].class_names == tuple(f"name {n}" for n in range(7))
    assert [(int(s["x"]), int(s["label"])) for s in lake] == [(n, n % 7) for n in range(500)]
    assert len(list((tmp_path / "lake/data").rglob("*.arrow"))) > 5


@pytest.mark.parametrize("shape", [(2,), (None,)])
def test_a_function_may_use_its_memory_again(shape: Any, tmp_path: Path) -> None:
    """Samples of a block that was divided keep their values when the function is called again."""
    buffer = np.zeros((16, 2), "int64")

    def filled(block: Any) -> Any:
        if 13 in block:
            raise ValueError("unlucky")
        buffer[: len(block)] = block[:, None]
        return {"x": buffer[: len(block)]}

    db.from_sequence(range(32), npartitions=1).to_lake(
        tmp_path / "lake",
        schema={"x": dasklake.TensorSpec(dtype="int64", shape=shape)},
        transform=filled,
        batched=True,
        batch_size=16,
        on_error="skip",
        max_failures=None,
    )
    rows = [sample["x"].tolist() for sample in dasklake.open(tmp_path / "lake")]
    assert rows == [[n, n] for n in range(32) if n != 13]


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (lambda b: {"x": b["x"], "root": [0.5]}, "'x' has 2, 'root' has 1"),
        (lambda _: None, "return a mapping of tensor names to columns, got None"),
        (lambda b: [dict(r) for r in b["x"]], r"got list|not iterable"),
        (lambda b: {"x": b["x"], "root": 0.5}, r"an array or a list .* got float"),
        (lambda b: {"x": b["x"], "root": "abc"}, r"an array or a list .* got str"),
        (lambda b: {"x": b["x"]}, r"tensor 'root'.*must have a value for this tensor"),
        (lambda b: {**b, "root": b["x"] * 0.5}, r"tensor 'name'.*does not have this tensor"),
        (lambda b: {"x": b["x"] * 0.5, "root": b["x"] * 0.5}, r"tensor 'x'.*astype\('int64'\)"),
    ],
    ids=["lengths", "none", "rows", "number", "text", "missing", "unknown", "dtype"],
)
def test_wrong_results_are_refused(result: Any, words: str, tmp_path: Path) -> None:
    """The error says what a function must return, and names the tensor or the lengths."""
    with pytest.raises(TransformError, match=words):
        table(15, 1).to_lake(tmp_path / "lake", schema=SCHEMA, transform=result, batched=True)


def test_rows_that_fail_together_have_all_failed(tmp_path: Path) -> None:
    """If no row of a block fails alone, all of its rows are failures, and none is written."""

    def crowded(block: Any) -> Any:
        if len(block) > 3:
            raise RuntimeError("too large for the device")
        return {"x": block}

    def write(size: int, name: str, on_error: Any = "skip") -> dasklake.WriteReport:
        report: dasklake.WriteReport = db.from_sequence(range(12), npartitions=1).to_lake(
            tmp_path / name,
            schema={"x": "int64"},
            transform=crowded,
            batched=True,
            batch_size=size,
            on_error=on_error,
            max_failures=None,
            options=SYNC,
        )
        return report

    assert write(3, "small").samples == 12
    with pytest.raises(TransformError, match=r"a block of 6 rows that begins here.*too large"):
        write(12, "raised", "raise")
    report = write(8, "large")
    assert (report.samples, report.failures) == (0, 12)
    failures = dasklake.open(tmp_path / "large").failures()
    assert failures["index"].tolist() == list(range(12))
    assert set(failures["exception"]) == {"RuntimeError"}


def test_machine_errors_of_a_block_are_not_divided(tmp_path: Path) -> None:
    """An error that is never skipped ends the run, and names the block."""
    calls: list[int] = []

    def full(block: Any) -> Any:
        calls.append(len(block))
        raise MemoryError("no memory")

    with pytest.raises(TransformError, match=r"a block of 12 rows.*no memory"):
        db.from_sequence(range(12), npartitions=1).to_lake(
            tmp_path / "lake",
            schema={"x": "int64"},
            transform=full,
            batched=True,
            batch_size=12,
            on_error="skip",
            options=dasklake.WriteOptions(scheduler="sync", retries=0),
        )
    assert calls == [12]


def test_items_before_an_error_of_the_input_are_checked_first(tmp_path: Path) -> None:
    """An error of a row is reported rather than one of the input after it."""

    def broken(items: Any) -> Iterator[Any]:
        yield from items
        raise OSError("the file ends here")

    bag = db.from_sequence([1, -2, 3], npartitions=1).map_partitions(broken)
    with pytest.raises(TransformError, match=r"position 1 of partition 0.*no root"):
        bag.to_lake(
            tmp_path / "lake",
            schema=SCHEMA,
            transform=lambda block: roots({"x": block}),
            batched=True,
        )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"batched": 5, "transform": dict}, "batched must be True or False, got 5"),
        ({"batched": True}, "needs a transform"),
        ({"batch_size": 5, "transform": dict}, "batch_size=5 needs batched=True"),
        (
            {"batch_size": 0, "batched": True, "transform": dict},
            "batch_size must be at least 1, got 0",
        ),
    ],
)
def test_wrong_arguments_are_refused(arguments: Any, words: str, tmp_path: Path) -> None:
    """Arguments without effect are errors before anything is written."""
    with pytest.raises(InvalidInputError, match=words):
        table().to_lake(tmp_path / "lake", schema=SCHEMA, **arguments)
    assert not (tmp_path / "lake").exists()


@follows(
    "batched=True needs a transform. Give a function of a block of rows, or omit it.",
    " needs batched=True. Give both, or omit it.",
    ". Use batch_size=1000, or omit it.",
    "with batched=True, transform must return a mapping of tensor names to columns, got ",
    ". Return a dict of arrays or lists, or omit batched=True.",
    "Return a column, such as [value] * rows.",
)
def test_the_remedies_of_errors_work(tmp_path: Path) -> None:
    """What the errors about blocks propose is accepted."""

    def write(**arguments: Any) -> Any:
        url = tmp_path / uuid4().hex
        return table(6, 1).to_lake(url, schema={"x": "int64"}, options=SYNC, **arguments)

    def one(block: Any) -> Any:
        return {"x": block["x"]}

    refused(write, batched=True)
    refused(write, transform=one, batch_size=1000)
    refused(write, transform=one, batch_size=0, batched=True)
    assert write(transform=one, batch_size=1000, batched=True).samples == 6
    assert write(transform=one).samples == 6
    refused(write, transform=lambda _: None, batched=True)
    refused(write, transform=lambda _: {"x": 5}, batched=True)
    assert write(transform=lambda b: {"x": [5] * len(b)}, batched=True).samples == 6


def test_eval_names_the_function_for_blocks(tmp_path: Path) -> None:
    """Functions of ``compute`` get single items, and ``eval`` says what takes blocks."""

    @dasklake.compute
    def same(item: int, sample_out: Any) -> None:
        sample_out.append({"x": item})

    lake = dasklake.empty(tmp_path / "lake")
    lake.create_tensor("x", dtype="int64", shape=())
    with pytest.raises(InvalidInputError, match=r"to_lake\(..., transform=, batched=True\)"):
        same().eval([1], lake, batched=True)
