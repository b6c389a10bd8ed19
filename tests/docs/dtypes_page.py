"""The table of docs/how-to/dataframes.md, made by writing a column of each dtype.

``python -m tests.docs.dtypes_page`` writes it into the page.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from uuid import uuid4

from tests.support.dtypes import COLUMNS, REFUSED, frame_of, through_lake, through_parquet

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "dataframes.md"

_BEGIN = "<!-- dtypes: made by tests/docs/dtypes_page.py -->"
_TABLE = re.compile(f"{re.escape(_BEGIN)}\n.*?\n<!-- end -->", re.DOTALL)
_COUNTS = re.compile(r"Of these \d+ dtypes.*?changes \d+\.", re.DOTALL)
_ROW = re.compile(r"^\| `(.+?)` \| (.+?) \| (.+?) \|$", re.MULTILINE)


def lake_outcome(name: str) -> str:
    """Return the outcome of a column in a lake: equal, or refused."""
    return through_lake(frame_of([name]), f"memory://{uuid4().hex}").partition(":")[0]


def parquet_outcome(*names: str) -> str:
    """Return the outcome of some columns in files of Parquet."""
    with tempfile.TemporaryDirectory() as folder:
        return through_parquet(frame_of(list(names)), folder)


def table() -> str:
    """Return the table of all dtypes."""
    rows = [f"| `{name}` | {lake_outcome(name)} | {parquet_outcome(name)} |" for name in COLUMNS]
    head = "| dtype | `to_lake` | `to_parquet` |\n|---|---|---|"
    return "\n".join([_BEGIN, "", head, *rows, "", "<!-- end -->"])


def rows(page: str) -> dict[str, tuple[str, str]]:
    """Return the outcomes that a page shows: in a lake, and in files of Parquet."""
    found = _TABLE.search(page)
    return {n: (lake, parquet) for n, lake, parquet in _ROW.findall(found[0] if found else "")}


def counts(outcomes: dict[str, tuple[str, str]]) -> str:
    """Return the sentence of the page that counts the outcomes."""
    parquet = [outcome for _, outcome in outcomes.values()]
    changed = sum(outcome not in ("equal", "refused") for outcome in parquet)
    return (
        f"Of these {len(outcomes)} dtypes, a lake restores {len(outcomes) - len(REFUSED)}, and refuses "
        f"{len(REFUSED)}. Parquet restores {parquet.count('equal')}, refuses "
        f"{parquet.count('refused')}, and changes {changed}."
    )


if __name__ == "__main__":
    text = _TABLE.sub(lambda _: table(), PAGE.read_text())
    PAGE.write_text(_COUNTS.sub(counts(rows(text)), text))
