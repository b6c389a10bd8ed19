"""Test that the table of dtypes on the page about dataframes is true."""

from __future__ import annotations

import pandas as pd
import pytest

from tests.docs.dtypes_page import PAGE, counts, parquet_outcome, rows
from tests.support.dtypes import COLUMNS, REFUSED


@pytest.mark.skipif(pd.Series(["a"]).dtype == object, reason="the page shows pandas 3")
def test_the_table_of_dtypes_is_up_to_date() -> None:
    """Each dtype has the outcome that the page shows, in a lake and in Parquet."""
    page = PAGE.read_text()
    outcomes = rows(page)
    again = "run python -m tests.docs.dtypes_page"
    assert list(outcomes) == list(COLUMNS), again
    for name, (lake, parquet) in outcomes.items():
        # tests/integration/test_dtypes.py writes all of them.
        assert lake == ("refused" if name in REFUSED else "equal"), again
        assert parquet == "equal" or parquet_outcome(name) == parquet, again
    kept = [name for name, (_, parquet) in outcomes.items() if parquet == "equal"]
    assert parquet_outcome(*kept) == "equal", again
    assert " ".join(page.split()).count(counts(outcomes)) == 1, again
