"""The page of htypes is what the table of htypes says."""

from __future__ import annotations

from tests.docs.htypes_page import PAGE, written


def test_the_tables_are_up_to_date() -> None:
    """Each row of the table of htypes, and each rule with its message, is on the page as it is."""
    page = PAGE.read_text()
    assert written(page) == page, "run python -m tests.docs.htypes_page"
