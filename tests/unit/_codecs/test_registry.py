"""Every htype has a codec."""

from __future__ import annotations

import pickle

import pytest

from dasklake import TensorSpec
from dasklake._codecs.registry import codec_for
from dasklake._schema.htypes import HTYPES


@pytest.mark.parametrize("htype", HTYPES)
def test_every_htype_has_a_codec(htype: str) -> None:
    """The codecs in the table of htypes exist, keep their spec, and can be pickled."""
    row = HTYPES[htype]
    spec = TensorSpec(
        htype,
        dtype=row.dtype or "int64",
        compression=row.compressions[0] if row.must_compress else None,
    )
    assert codec_for(spec).spec == spec
    assert pickle.loads(pickle.dumps(codec_for(spec))).spec == spec
