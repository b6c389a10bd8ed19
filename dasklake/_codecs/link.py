"""Codec of links: the URL of an external file, and the key of its credentials."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pyarrow as pa
import pyarrow.compute as pc

from dasklake._codecs.codec import Codec
from dasklake._codecs.compression import Encoded
from dasklake._codecs.text import checked_text, string_column
from dasklake._schema.values import Link, link
from dasklake.exceptions import SampleError

#: Query parameters that grant access, in lower case.
_SECRETS = frozenset(
    {
        *("sig", "signature", "x-amz-signature", "x-amz-security-token", "x-goog-signature"),
        *("token", "access_token", "auth_token", "api_key", "apikey", "password", "secret"),
    }
)

#: Separator of the URLs of a chain, such as ``zip://a.jpg::https://host/b.zip``.
_CHAIN = re.compile("::(?=[A-Za-z][A-Za-z0-9+.-]*://)")


class LinkCodec(Codec):
    """Codec of ``link[...]``."""

    def encode(self, value: object) -> Encoded:
        """Check a link or a URL. A URL is a link without a credentials key."""
        target = Link(value) if isinstance(value, str) else value
        if not isinstance(target, Link) or not target.url:
            raise SampleError(
                f"the value must be a URL or link that is not empty, got {type(value).__name__}. Give "
                "a URL, or dasklake.link(url)."
            )
        link(target.url, target.creds_key)  # checks a Link that was constructed directly
        _refuse_secrets(target.url)
        encoded: dict[str, Any] = {
            "url": checked_text(target.url),
            "creds_key": None if target.creds_key is None else checked_text(target.creds_key),
        }
        if target.expected is not None and self.spec.verify:
            encoded["expected"] = target.expected  # removed after the verification
        return encoded

    def encode_column(self, values: object) -> pa.Array | None:
        """Check many URLs at once, unless their targets are verified."""
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
    """Refuse a URL that contains a secret, without repeating it in the message."""
    for part in _CHAIN.split(url):
        if "://" not in part or not ("@" in part or "?" in part):
            continue
        url_parts = None
        with suppress(ValueError):
            url_parts = urlsplit(part)
            names = {name.lower() for name, _ in parse_qsl(url_parts.query)}
        if url_parts is None:  # raised here, because the ValueError repeats the URL
            raise SampleError("the URL cannot be parsed: its host or port is invalid. Fix the URL.")
        # In an HTTP URL, a user without a password is usually a token.
        is_http = url_parts.scheme in ("http", "https")
        if url_parts.password is not None or (is_http and url_parts.username):
            content = "a password or token"
        elif names & _SECRETS:
            content = f"the parameter {', '.join(sorted(names & _SECRETS))}"
        else:
            continue
        raise SampleError(
            f"a URL must not contain credentials, got {content}. Remove it from the URL, and name the "
            "credentials with dasklake.link(url, creds_key=...)."
        )
