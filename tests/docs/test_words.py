"""The words of other libraries: each row of the page works, or its error names the equivalent."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import dask
import dask.dataframe as dd
import pandas as pd
import pytest

import dasklake
from dasklake.exceptions import LakeError

PAGE = Path(__file__).parents[2] / "docs/how-to/words-of-other-libraries.md"
ROWS = re.findall(r"^\| `(.+?)` \| (.+?) \|$", PAGE.read_text(), re.MULTILINE)


@dasklake.compute
def f(item: int, sample_out: Any) -> None:
    """Write a number."""
    sample_out.append({"n": item})


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return a frame and a lake of it, which no row changes."""
    data = pd.DataFrame({"x": range(6), "y": list("abcdef")})
    frame = dd.from_pandas(data, npartitions=2)
    url = str(tmp_path_factory.mktemp("words") / "lake")
    frame.to_lake(url, progress=False, options=dasklake.WriteOptions(scheduler="sync"))
    return {"dasklake": dasklake, "frame": frame, "lake": dasklake.open(url), "f": f}


@pytest.fixture
def names(shared: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """Return the values that the rows of the page name."""
    target = dasklake.empty(tmp_path / "target")
    target.create_tensor("n", dtype="int64", shape=())
    return shared | {"target": target, "url": str(tmp_path / "new")}


def executed(call: str, names: dict[str, Any]) -> None:
    """Run a call; the schedulers of processes are not needed for it."""
    with dask.config.set(scheduler="sync"):
        eval(call, dict(names))  # noqa: S307 # calls of our own page


@pytest.mark.parametrize(("there", "here"), ROWS, ids=[there for there, _ in ROWS])
def test_each_word_works_or_its_error_names_the_equivalent(
    there: str, here: str, names: dict[str, Any]
) -> None:
    """The same call works; or it is a LakeError that names the equivalent, which works."""
    if here == "the same":
        executed(there, names)
        return
    with pytest.raises(LakeError) as caught:
        executed(there, names)
    message = str(caught.value)
    assert "Did you mean" not in message
    if here == "omit it":
        assert message.endswith("Omit it.")
        return
    call = here.strip("`")
    words = re.findall(r"(\w+)=|\.(\w+)", call) + [("len", "")] * call.startswith("len")
    named = any(word in message for pair in words for word in pair if word not in ("", "url"))
    assert named or call in message
    executed(call, names)


def test_the_page_has_the_words_of_three_libraries() -> None:
    """The page has a row for each word that the issue names."""
    calls = " ".join(there for there, _ in ROWS)
    for word in ("append=", "write_index=", "lake.connect", "lake.commit(", "token=", "ds_out="):
        assert word in calls
    assert len(ROWS) > 60
