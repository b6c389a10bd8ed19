"""Links: URLs and credentials keys, never the credentials."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from dasklake import TensorSpec, link
from dasklake._codecs.registry import codec_for
from dasklake._schema.values import Link
from dasklake.exceptions import SampleError

SPEC = TensorSpec("link[image]", compression="jpeg", verify=False)


@pytest.mark.parametrize("value", ["s3://b/a.jpg", link("s3://b/a.jpg"), link("a", "key")])
def test_links_round_trip(value: Any) -> None:
    """A URL is stored as a link without a credentials key; a link keeps its key."""
    codec = codec_for(SPEC)
    assert codec.decode(codec.encode(value)) == (link(value) if isinstance(value, str) else value)


@pytest.mark.parametrize(
    "value",
    [
        "",
        5,
        b"s3://b/a.jpg",
        "s3://user:word@host/a",
        "ftp://[x:word@z",
        b"s3://user:word@host/a",
        Link(5),  # type: ignore[arg-type]  # an invalid type
        Link("a", 5),  # type: ignore[arg-type]  # an invalid type
        "\ud800",
    ],
    ids=ascii,
)
def test_invalid_links_are_refused(value: Any) -> None:
    """An invalid URL, or a URL with a password, is refused without showing the password."""
    with pytest.raises(SampleError) as raised:
        codec_for(SPEC).encode(value)
    assert "word@" not in str(raised.value)


def test_columns_of_urls_are_encoded_at_once() -> None:
    """A column of URLs takes the fast path, unless a URL may contain credentials."""
    codec = codec_for(SPEC)
    column = codec.encode_column(pd.Series(["s3://b/1", None], dtype="string"))
    assert column is not None
    assert column.type == codec.storage.type
    assert column.to_pylist() == [{"url": "s3://b/1", "creds_key": None}, None]
    assert codec.encode_column(pd.Series(["s3://u:p@b/1"], dtype="string")) is None
    assert codec.encode_column(pd.Series([1])) is None


@pytest.mark.parametrize(
    "url",
    [
        "https://b.blob.core.windows.net/c/a.jpg?sv=1&sig=SECRET",
        "https://b.s3.amazonaws.com/a.jpg?X-Amz-Signature=SECRET&X-Amz-Date=1",
        "https://host/a.jpg?token=SECRET",
        "https://SECRET@host/a.jpg",
        "simplecache::https://user:SECRET@host/a.jpg",
        "https://user:SECRET@[host/a.jpg",
    ],
)
def test_secrets_in_urls_are_refused(url: str) -> None:
    """A URL with credentials is refused as a value and in columns, and never repeated."""
    codec = codec_for(SPEC)
    with pytest.raises(SampleError, match=r"creds_key|cannot be parsed") as raised:
        codec.encode(url)
    assert "SECRET" not in str(raised.value)
    assert codec.encode_column(pd.Series([url], dtype="string")) is None


@pytest.mark.parametrize(
    "url", ["https://host/a.jpg?size=3&page=1", "sftp://me@host/a.jpg", "/data/a?token=b.jpg"]
)
def test_queries_and_users_without_secrets_are_kept(url: str) -> None:
    """A link keeps a query without secrets, a user without a password, and a path."""
    codec = codec_for(SPEC)
    assert codec.decode(codec.encode(url)) == link(url)
