"""The table of htypes."""

from __future__ import annotations

import numpy as np
import pytest

from dasklake._schema.htypes import COMPRESSION_ALIASES, COORDS, HTYPES, Htype, parse_htype
from dasklake.exceptions import SchemaError


@pytest.mark.parametrize("htype", HTYPES.values(), ids=lambda h: h.name)
def test_rows_are_consistent(htype: Htype) -> None:
    """The defaults of a row are allowed by the row."""
    assert parse_htype(htype.name) == (htype, False, False)
    if htype.dtype not in (None, "str"):
        kinds = htype.dtypes or np.dtype(htype.dtype).kind
        assert np.dtype(htype.dtype).kind in kinds
    if htype.shape is not None and htype.ranks:
        assert len(htype.shape) in htype.ranks
    assert set(COMPRESSION_ALIASES.values()).isdisjoint({""})


def test_links_and_lists_are_parsed() -> None:
    """``link[image]`` is a link to an image, ``sequence[...]`` a list of the inner htype."""
    assert parse_htype("link[image]") == (HTYPES["image"], True, False)
    assert parse_htype("sequence[text]") == (HTYPES["text"], False, True)
    assert parse_htype("sequence[link[image]]") == (HTYPES["image"], True, True)


@pytest.mark.parametrize(
    "name", ["picture", "link[text]", "link[]", "link[link[image]]", "sequence[sequence[text]]", ""]
)
def test_unknown_names_list_the_valid_names(name: str) -> None:
    """An unknown htype is an error that lists the valid htypes."""
    with pytest.raises(SchemaError, match="class_label"):
        parse_htype(name)


def test_coords_are_unit_and_mode() -> None:
    """A box is given in pixels or fractions, in three formats."""
    assert len(set(COORDS)) == 6
    assert "pixel-ltwh" in COORDS
