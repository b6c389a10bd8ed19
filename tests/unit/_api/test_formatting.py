"""Test the text and HTML of lakes and logs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from dasklake import Schema, TensorSpec
from dasklake._api.formatting import History, lake_text
from dasklake._api.lake import open as open_lake
from tests.support.samples import Make


def test_a_lake_shows_its_tensors(make_lake: Make, tmp_path: Path) -> None:
    """The text of a lake has a line for each tensor; its HTML escapes user input."""
    schema = Schema({"<b>": TensorSpec("bbox"), "x": TensorSpec(dtype="int8", shape=(3,))})
    store = make_lake(schema, [[[{"<b>": [], "x": [1, 2, 3]}]]])
    lake = open_lake(store.url)
    text = repr(lake)
    assert text.startswith(f"Lake('file://{tmp_path}/lake', version=2)\n1 samples, ")
    assert "(?, 4)" in text
    assert "(3,)" in text
    assert text.splitlines()[1].endswith(", complete")
    assert "&lt;b&gt;" in lake._repr_html_()
    assert "<b><" not in lake._repr_html_()
    assert repr(lake["x"]).startswith("Tensor('x', 1 samples, ")


def test_a_lake_of_many_tensors_is_shortened(make_lake: Make) -> None:
    """A lake with very many tensors shows their number, and only part of them."""
    few = Schema({"x": TensorSpec(dtype="int8", shape=())})
    many = Schema({f"t{i}": TensorSpec(dtype="int8", shape=()) for i in range(2000)})
    commit = replace(open_lake(make_lake(few, [[[]]]).url).commit, schema=many)
    text = lake_text("memory://x", commit, complete=False)
    assert len(text.splitlines()) < 100
    assert "… 1940 more" in text
    assert "incomplete" in text


def test_a_log_prints_like_a_log(make_lake: Make) -> None:
    """The log prints commits with author, time and message, and is a list of them."""
    schema = Schema({"x": TensorSpec(dtype="int8", shape=())})
    store = make_lake(schema, [[[{"x": 1}]], [[{"x": 2}]]])
    log = open_lake(store.url).log()
    assert isinstance(log, list)
    assert [commit.version for commit in log] == [3, 2, 0]
    assert "Total samples processed: 2" in str(log)
    assert f"Commit : {log[0].id} (version 3, data)" in repr(log)
    assert [c.version for c in open_lake(store.url).log(entries=True)] == [3, 2, 1, 0]
    assert [c.version for c in open_lake(store.url).log(max_count=2)] == [3, 2]
    assert str(History()) == "(no commits)"
