"""The published JSON Schema is the one that readers validate commits and heartbeats with."""

from __future__ import annotations

from tests.docs.schema_page import PAGE, schema_text


def test_the_schema_is_up_to_date() -> None:
    """The file agrees with the code."""
    assert PAGE.read_text() == schema_text(), "run python -m tests.docs.schema_page"
