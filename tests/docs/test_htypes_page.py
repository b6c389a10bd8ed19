"""Test that the page of htypes agrees with the table of htypes."""

from __future__ import annotations

import re

from tests.docs.htypes_page import PAGE, written


def test_the_tables_are_up_to_date() -> None:
    """Each row of the table of htypes, and each rule with its message, is on the page."""
    page = PAGE.read_text()
    sizes = re.compile(r"\d+ bytes")  # of an encoded image: they depend on the encoder's release
    texts = [sizes.sub("N bytes", text) for text in (written(page), page)]
    assert texts[0] == texts[1], "run python -m tests.docs.htypes_page"
