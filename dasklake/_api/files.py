"""``read``: a file on a disk or in object storage as a value of a sample."""

from __future__ import annotations

import os
from functools import partial

from dasklake._links.verify import fetch
from dasklake._media.file import File
from dasklake._schema.argument_types import with_checked_arguments
from dasklake._storage.urls import file_url
from dasklake.exceptions import InvalidInputError


@with_checked_arguments
def read(path: str | os.PathLike[str], creds_key: str | None = None) -> File:
    """Refer to a file, as a value of a sample. Its bytes are read when they are used.

    Parameters
    ----------
    path : str or path
        Path, or any URL that fsspec supports.
    creds_key : str, optional
        Credentials key to read it with.

    Returns
    -------
    File
        The file. Its bytes are stored unchanged in a tensor whose compression is the format of the
        file. ``read(path).numpy()`` decodes it.

    Raises
    ------
    InvalidInputError
        ``path`` is empty, or not a path.

    Examples
    --------
    >>> import dasklake
    >>> dasklake.read("/data/clip.mp4")
    <File 'file:///data/clip.mp4'>
    """
    if not isinstance(path, str | os.PathLike):
        raise InvalidInputError(
            f"path must be the path or URL of a file, got {type(path).__name__}. Give a string or a "
            "path; bytes of a file need no call."
        )
    name = os.fspath(path)
    if not name:
        raise InvalidInputError("path must be the path or URL of a file, got an empty string.")
    url = file_url(name)
    return File(partial(_fetch, url, creds_key), url=url)


def _fetch(url: str, creds_key: str | None) -> bytes:
    return fetch(url, creds_key).result()
