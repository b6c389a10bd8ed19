"""``read``: a file on a disk or in a store, as a value for a sample."""

from __future__ import annotations

import os
from functools import partial

from dasklake._links.verify import fetch
from dasklake._media.file import File
from dasklake._storage.store import absolute_url
from dasklake.exceptions import InvalidInputError

__all__ = ["File", "read"]


def read(path: str | os.PathLike[str], creds_key: str | None = None) -> File:
    """Name a file whose bytes are read when they are needed, such as in the write task.

    Parameters
    ----------
    path : str or path
        Where it lies, as fsspec reads it.
    creds_key : str, optional
        Name of the credentials to read it with.

    Returns
    -------
    File
        As a value of a tensor whose compression is the file's format its bytes pass through
        unchanged; ``read(path).numpy()`` decodes it.

    Raises
    ------
    InvalidInputError
        ``path`` is empty.

    Examples
    --------
    >>> read("/data/clip.mp4")
    <File 'file:///data/clip.mp4'>
    """
    name = os.fspath(path)
    if not name:
        raise InvalidInputError("The path is empty. Name a file.")
    url = absolute_url(name)
    return File(partial(_fetch, url, creds_key), url=url)


def _fetch(url: str, creds_key: str | None) -> bytes:
    return fetch(url, creds_key).result()
