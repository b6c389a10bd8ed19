"""Read files of the user, under exactly the URLs that the user gives."""

from __future__ import annotations

import os

from dasklake import creds
from dasklake._storage.errors import translate_errors
from dasklake._storage.fsspec_backend import user_file_of, whole_options
from dasklake._storage.retry import STORE_RETRIES
from dasklake._storage.urls import file_url, safe_url
from dasklake.exceptions import ObjectNotFoundError


def read_file(url: str | os.PathLike[str], storage_options: creds.StorageOptions = None) -> bytes:
    """Read a file completely, with retries.

    Parameters
    ----------
    url : str or path
        Path or URL of the file. The URL of an object is not normalized.
    storage_options : mapping, callable or str, optional
        Options of fsspec; a string names a credentials key.

    Returns
    -------
    bytes
        The file.

    Raises
    ------
    InvalidInputError
        ``url`` is neither a path nor a URL.
    StoreError
        The file cannot be read.
    """
    address = file_url(url)
    if address.endswith("/"):
        raise ObjectNotFoundError(
            f"{safe_url(address)} must be a file, got a folder. Give the URL of the file."
        )
    options = creds.resolve(storage_options)

    def read() -> bytes:
        with translate_errors("read", "", address, options):
            fs, path = user_file_of(address, options)
            return bytes(fs.cat_file(path, **whole_options(fs)))

    return STORE_RETRIES.call(read)
