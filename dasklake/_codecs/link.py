"""Links: what lies elsewhere is named by URL and by the name of its credentials."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, urlsplit

import pyarrow as pa
import pyarrow.compute as pc

from dasklake._codecs.codec import Codec
from dasklake._codecs.compression import Encoded
from dasklake._codecs.text import checked_text, string_column
from dasklake._schema.values import Link, link
from dasklake.exceptions import SampleError

__all__ = ["LinkCodec"]

#: Parameters of a query that let whoever knows them in, in small letters.
_SECRETS = frozenset(
    {
        *("sig", "signature", "x-amz-signature", "x-amz-security-token", "x-goog-signature"),
        *("token", "access_token", "auth_token", "api_key", "apikey", "password", "secret"),
    }
)

#: Between the URLs of a chain, such as ``zip://a.jpg::https://host/b.zip``.
_CHAIN = re.compile("::(?=[A-Za-z][A-Za-z0-9+.-]*://)")


class LinkCodec(Codec):
    """Codec of ``link[...]``."""

    def encode(self, value: object) -> Encoded:
        """Check a link, or a URL, which is a link without credentials of its own."""
        found = Link(value) if isinstance(value, str) else value
        if not isinstance(found, Link) or not found.url:
            raise SampleError(
                f"a value of type {type(value).__name__} is not a link, or an empty one. Give a "
                "URL, or dasklake.link(url)."
            )
        link(found.url, found.creds_key)  # a Link that was not made by it is checked by it
        _refuse_secrets(found.url)
        return {
            "url": checked_text(found.url),
            "creds_key": None if found.creds_key is None else checked_text(found.creds_key),
        }

    def encode_column(self, values: object) -> pa.Array | None:
        """Check many URLs at once, where nobody looks at their targets."""
        if self.spec.verify:
            return None
        try:
            urls = string_column(values, pa.large_string())
        except (pa.ArrowException, TypeError, ValueError):
            return None
        if urls is None or pc.any(pc.match_substring_regex(urls, "[@?]|^$")).as_py():
            return None
        keys = pa.nulls(len(urls), pa.string())
        return pa.StructArray.from_arrays(
            [urls, keys], fields=list(self.storage.type), mask=urls.is_null()
        )

    def decode(self, stored: Encoded) -> object:
        """Return the link."""
        return Link(stored["url"], stored["creds_key"])


def _refuse_secrets(url: str) -> None:
    """Refuse a URL that holds a secret, without repeating it."""
    for part in _CHAIN.split(url):
        if "://" not in part or not ("@" in part or "?" in part):
            continue
        try:
            found = urlsplit(part)
            names = {name.lower() for name, _ in parse_qsl(found.query)}
        except ValueError:
            raise SampleError(
                "the URL cannot be read: its host or port is wrong. Fix it."
            ) from None
        # On the web, a lone user in front of the host is a token.
        if found.password is not None or (found.scheme in ("http", "https") and found.username):
            what = "a password or token"
        elif names & _SECRETS:
            what = f"a secret ({', '.join(sorted(names & _SECRETS))}=...)"
        else:
            continue
        raise SampleError(
            f"the URL holds {what}, which a lake must not keep. Leave it out, and name credentials "
            "with dasklake.link(url, creds_key=...)."
        )
