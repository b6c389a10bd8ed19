"""Errors of ``eval`` use its own arguments, and their proposals work."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import dask.bag as db
import pytest

import dasklake
from dasklake.exceptions import InvalidInputError, LakeError, TransformError, UnknownNameError


@dasklake.compute
def refused(item: int, sample_out: Any, bad: int | None) -> None:
    """Write a number; fail at one of them."""
    if item == bad:
        raise RuntimeError("refused")
    sample_out.append({"n": item})


@pytest.fixture
def lake(tmp_path: Path) -> dasklake.Lake:
    """Return an empty lake with one tensor."""
    lake = dasklake.empty(tmp_path / "lake")
    lake.create_tensor("n", dtype="int64", shape=())
    return lake


def test_a_failure_names_the_run_and_ignore_errors(lake: dasklake.Lake) -> None:
    """The message proposes run= and ignore_errors=, and both continue the run."""
    with pytest.raises(TransformError) as caught:
        refused(bad=2).eval([0, 1, 2, 3], lake, progressbar=False)
    message = str(caught.value)
    assert "mode=" not in message
    assert "on_error" not in message
    run = re.findall(r"run='(\S+)'", message)[0]
    assert "ignore_errors=True" in message
    report = refused(bad=2).eval([0, 1, 2, 3], lake, run=run, ignore_errors=True, progressbar=False)
    assert report.run == run
    assert list(lake["n"]) == [0, 1, 3]


def test_without_samples_nothing_is_resumed(lake: dasklake.Lake) -> None:
    """A run that committed nothing is called again, in the same way."""
    with pytest.raises(TransformError, match=r"No samples were committed\. Fix") as caught:
        refused(bad=0).eval([0, 1], lake, run="a", progressbar=False)
    assert "resume" not in str(caught.value)
    assert refused(bad=None).eval([0, 1], lake, run="a", progressbar=False).samples == 2


def test_another_input_takes_another_run(lake: dasklake.Lake) -> None:
    """The message about another input proposes another run, which works."""
    refused(bad=None).eval([0, 1], lake, run="a", progressbar=False)
    with pytest.raises(InvalidInputError, match=r"or give another run=\.$"):
        refused(bad=None).eval(list(range(100)), lake, run="a", progressbar=False)
    refused(bad=None).eval([2], lake, run="b", progressbar=False)
    assert len(lake) == 3


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"checkpoint_interval": "soon"}, "checkpoint_interval must be .* got 'soon'"),
        ({"checkpoint_interval": -3}, "checkpoint_interval must be .* got -3"),
        ({"num_workers": 2.5}, "num_workers must be .* got 2.5"),
        ({"num_workers": "two"}, "num_workers must be .* got 'two'"),
        ({"ignore_errors": "yes"}, "ignore_errors must be .* got 'yes'"),
        ({"skip_ok": 3}, "skip_ok must be .* got 3"),
        ({"options": 3}, "options must be .* got int"),
        ({"checkpoint_intervall": 3}, "Did you mean"),
    ],
)
def test_wrong_arguments_are_named_as_given(
    lake: dasklake.Lake, arguments: dict[str, Any], text: str
) -> None:
    """A wrong argument is an error with the name and the value that were given."""
    with pytest.raises(InvalidInputError, match=text):
        refused(bad=None).eval([1], lake, **arguments)


@pytest.mark.parametrize("first", ["create", "append", "overwrite", "resume"])
def test_a_corrected_schema_is_written_after_a_wrong_one(tmp_path: Path, first: Any) -> None:
    """The first call had too few tensors; the same call without a mode works."""
    bag = db.from_sequence([{"n": 1, "m": 2}], npartitions=1)
    url = tmp_path / "circle"
    with pytest.raises(TransformError, match="call again"):
        dasklake.to_lake(bag, url, schema={"n": "int64"}, mode=first, run="r", progress=False)
    dasklake.to_lake(bag, url, schema={"n": "int64", "m": "int64"}, run="other", progress=False)
    assert len(dasklake.open(url)) == 1


def test_unknown_names_are_attribute_errors(lake: dasklake.Lake) -> None:
    """hasattr, copies and pickles see a plain absence."""
    assert not hasattr(lake, "connect")
    assert not hasattr(dasklake, "ingest_coco")
    assert not hasattr(lake, "_private")
    for owner, name, text in (
        (lake, "n", r"lake\['n'\]"),
        (lake, "apend", "Did you mean 'append'"),
        (dasklake, "something_else", "lists the names"),
    ):
        with pytest.raises(UnknownNameError, match=text):
            getattr(owner, name)


@pytest.mark.parametrize("pipelines", [None, 5, refused(bad=None)])
def test_compose_takes_a_list(pipelines: Any) -> None:
    """Anything but a list of pipelines is refused."""
    with pytest.raises(LakeError, match="Give"):
        dasklake.compose(pipelines)
