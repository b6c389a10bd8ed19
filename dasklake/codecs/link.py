"""Links: what lies elsewhere is named by URL and by the name of its credentials."""

from __future__ import annotations

from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.compute as pc

from dasklake._model.schema import TensorSpec
from dasklake._model.values import Link, storage_of
from dasklake.codecs.packing import Encoded, shorten
from dasklake.codecs.text import string_column
from dasklake.exceptions import SampleError

__all__ = ["LinkCodec"]


class LinkCodec:
    """Codec of ``link[...]``.

    Parameters
    ----------
    spec : TensorSpec
        What the tensor holds.
    """

    def __init__(self, spec: TensorSpec) -> None:
        self.spec = spec
        self.storage = storage_of(spec)

    def encode(self, value: object) -> Encoded:
        """Check a link, or a URL, which is a link without credentials of its own."""
        found = Link(value) if isinstance(value, str) else value
        if not isinstance(found, Link) or not found.url:
            raise SampleError(
                f"{shorten(value)} of type {type(value).__name__} is not a link. Give a URL, or "
                "dasklake.link(url)."
            )
        if "@" in found.url and "://" in found.url and _has_password(found.url):
            raise SampleError(
                "the URL holds a password, which a lake must not keep. Leave it out, and name "
                "credentials with dasklake.link(url, creds_key=...)."
            )
        return {"url": str(found.url), "creds_key": found.creds_key}

    def encode_column(self, values: object) -> pa.Array | None:
        """Check many URLs at once."""
        try:
            urls = string_column(values, pa.large_string())
        except (pa.ArrowException, TypeError, ValueError):
            return None
        if (
            urls is None
            or pc.any(pc.or_(pc.match_substring(urls, "@"), pc.equal(urls, ""))).as_py()
        ):
            return None
        keys = pa.nulls(len(urls), pa.string())
        return pa.StructArray.from_arrays(
            [urls, keys], fields=list(self.storage.type), mask=urls.is_null()
        )

    def decode(self, stored: Encoded) -> object:
        """Return the link."""
        return Link(stored["url"], stored["creds_key"])


def _has_password(url: str) -> bool:
    try:
        return urlsplit(url).password is not None
    except ValueError as error:
        raise SampleError(f"{shorten(url)} is not a URL: {error}. Mend it.") from error
