"""Locate the files that an annotation file names, and read them.

An annotation file may come from anywhere. Its names lead to files in the folder of the images, or
below a URL that the caller allows. Any other name is a failure of its image.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, NamedTuple
from urllib.parse import quote, unquote

from dasklake._links.verify import fetch
from dasklake._media.sniff import format_of
from dasklake._storage.urls import LOCAL, file_url, is_chained, safe_url
from dasklake.creds import Credentials, StorageOptions, current
from dasklake.exceptions import InvalidInputError, SampleError
from dasklake.sources._coco_records import show

#: Most bytes of a name: that of the longest keys of object storages.
_LONGEST_NAME = 1024

_WEB = frozenset({"http", "https"})

#: Characters of a name that a URL of the web keeps.
_URL_CHARACTERS = "/!$&'()*+,;=:@~"

#: Formats by extension.
_FORMATS = {
    extension: format_
    for format_, extensions in {
        "jpeg": "jpg jpeg jpe",
        "png": "png",
        "webp": "webp",
        "gif": "gif",
        "tiff": "tif tiff",
        "bmp": "bmp",
        "jpeg2000": "jp2 j2k",
        "ppm": "ppm pgm pnm",
        "tga": "tga",
    }.items()
    for extension in extensions.split()
}


class FileAddress(NamedTuple):
    """A file: the URL of a folder, and the path in it."""

    folder: str
    path: str

    @property
    def url(self) -> str:
        """URL of the file."""
        before, folder, after = _split_chain(self.folder)
        return f"{before}{folder}{'' if folder.endswith('/') else '/'}{self.path}{after}"

    @property
    def storage(self) -> str:
        """Storage that the credentials are for: a protocol, and the host or archive."""
        _, folder, after = _split_chain(self.folder)
        protocol, _, path = folder.partition("://")
        return f"{protocol}://{path.partition('/')[0] if protocol in _WEB else ''}{after}"


class ImageFolder:
    """The folder of the images, and further folders that the caller allows.

    Parameters
    ----------
    url : str or os.PathLike
        URL of the folder.
    allowed_urls : sequence of str
        URLs of further folders, for names that are absolute paths or URLs.
    """

    def __init__(self, url: str | os.PathLike[str], allowed_urls: Sequence[str] = ()) -> None:
        if isinstance(allowed_urls, str):
            raise InvalidInputError(
                f"allowed_urls must be a list of URLs, got {show(allowed_urls)}. Put it into a list."
            )
        self._folder = _folder_url(url)
        self._allowed = (self._folder, *map(_folder_url, allowed_urls))

    def locate(self, name: str) -> FileAddress:
        """Return the address of a file.

        Parameters
        ----------
        name : str
            Path in the folder, absolute path, or URL.

        Raises
        ------
        SampleError
            ``name`` is not valid, or leads to a file outside the folder and the allowed URLs.
        """
        if "\0" in name or len(name.encode(errors="replace")) > _LONGEST_NAME:
            raise SampleError(
                f"a file name must have at most {_LONGEST_NAME} bytes and no zero byte, got "
                f"{show(name)}. Fix the annotation file."
            )
        is_path = name.startswith("/")
        address = self._absolute(name) if "://" in name or is_path or is_chained(name) else None
        # A key of an object may begin with a slash.
        is_local = self._folder.partition("://")[0] in LOCAL
        if address is None and not (is_chained(name) or "://" in name or (is_path and is_local)):
            address = self._relative(name)
        if address is None or not address.path:
            raise SampleError(
                f"the file name {show(safe_url(name))} must lead to a file below {safe_url(self._folder)}. "
                "Fix the annotation file, or pass the URL of its folder in allowed_urls."
            )
        return address

    def has_credentials_of(self, address: FileAddress) -> bool:
        """Return whether the credentials of the folder may be sent for a file."""
        return FileAddress(self._folder, "").storage == address.storage

    def _relative(self, name: str) -> FileAddress | None:
        before, folder, after = _split_chain(self._folder)
        protocol, _, base = folder.partition("://")
        path = _joined(base.rstrip("/"), name, protocol)
        root = f"{base.rstrip('/')}/" if base.strip("/") else ""
        if path is None:
            return None
        if not path.startswith(root):
            return self._allowed_address(f"{before}{protocol}://{path}{after}")
        path = path.removeprefix(root)
        if protocol in _WEB:
            path = quote(path, safe=_URL_CHARACTERS)
        address = FileAddress(self._folder, path)
        # The name must not turn the URL into a chain.
        return address if is_chained(address.url) == is_chained(self._folder) else None

    def _absolute(self, name: str) -> FileAddress | None:
        if is_chained(name):
            return self._allowed_address(name)
        protocol, separator, path = name.partition("://")
        if not separator:
            protocol, path = "file", name
        joined = _joined("", path, protocol)
        return None if joined is None else self._allowed_address(f"{protocol}://{joined}")

    def _allowed_address(self, url: str) -> FileAddress | None:
        for folder in self._allowed:
            root = folder if folder.endswith("/") else f"{folder}/"
            if url.startswith(root):
                return FileAddress(folder, url.removeprefix(root))
        return None


class ImageReader:
    """Read the images of a folder, as a function of the file name.

    Parameters
    ----------
    folder : ImageFolder
        The folder.
    storage_options : mapping, callable or str, optional
        Options of fsspec for the storage of the folder.
    format_ : str, optional
        Format that every file must have.
    """

    def __init__(
        self, folder: ImageFolder, storage_options: StorageOptions, format_: str | None = None
    ) -> None:
        self._folder = folder
        self._storage_options = storage_options
        self._format = format_
        self._credentials: Credentials | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return ImageReader, (self._folder, self._storage_options, self._format)

    def of_format(self, format_: str) -> ImageReader:
        """Return a reader that refuses files of other formats."""
        return ImageReader(self._folder, self._storage_options, format_)

    def __call__(self, name: str) -> bytes:
        address = self._folder.locate(name)
        if self._folder.has_credentials_of(address):
            credentials = self._credentials
            if credentials is None or not credentials.fresh:
                credentials = self._credentials = current(self._storage_options)
            data = fetch(address.url, self._storage_options, credentials=credentials).result()
        else:
            data = fetch(address.url, None).result()
        actual = format_of(data)
        if self._format is not None and actual not in (None, self._format):
            raise SampleError(
                f"the file {show(name)} must be {self._format}, as the other file names say, got "
                f"{actual}. Pass compression={self._format!r} to convert such files, or rename it."
            )
        return data


def formats_of(names: Sequence[str]) -> set[str | None]:
    """Return the formats of files by their extensions; None for an unknown one."""
    extensions = {name.partition("?")[0].rpartition(".")[2].lower() for name in names}
    return {_FORMATS.get(extension) for extension in extensions}


def names_in_folder(urls: Sequence[str]) -> list[str]:
    """Return the names of files in the deepest folder that has them all.

    An annotation file with these names is read with the URL of that folder. Without a common folder,
    the names are URLs without user, password and query.

    Examples
    --------
    >>> names_in_folder(["s3://in/train/a.jpg", "s3://in/val/b.jpg"])
    ['train/a.jpg', 'val/b.jpg']
    >>> names_in_folder(["zip://a%20b.jpg::https://host/in.zip", "zip://c.jpg::https://host/in.zip"])
    ['a%20b.jpg', 'c.jpg']
    """
    split = [_split_chain(url) for url in urls]
    chains = {(before, after) for before, _, after in split}
    paths = [path.partition("?")[0] if _is_web(path) else path for _, path, _ in split]
    # Cut to a folder below. commonpath() would drop empty parts, which keys of objects have.
    start = os.path.commonprefix([path[: path.rfind("/") + 1] for path in paths])  # noqa: RUF071 # as said
    folder = start[: start.rfind("/") + 1]
    # A folder of a chain may be the root of its archive, but one host or bucket is not another.
    in_archive = len(chains) == 1 and chains != {("", "")}
    if len(chains) > 1 or not folder or (folder.endswith("://") and not in_archive):
        return [safe_url(url) for url in urls]
    names = [path.removeprefix(folder) for path in paths]
    return [unquote(name) for name in names] if _is_web(folder) else names


def _is_web(url: str) -> bool:
    return url.partition("://")[0] in _WEB


def _folder_url(url: str | os.PathLike[str]) -> str:
    text = file_url(url)
    # The root of a disk or an archive ends with the slashes of its protocol.
    return text if text.rstrip("/").endswith(":") else text.rstrip("/")


def _split_chain(url: str) -> tuple[str, str, str]:
    """Return the part of a chained URL that holds the path, between the parts around it."""
    if not is_chained(url):
        return "", url, ""
    parts = url.split("::")
    position = next((index for index, part in enumerate(parts) if "://" in part), len(parts) - 1)
    before = "".join(f"{part}::" for part in parts[:position])
    return before, parts[position], "".join(f"::{part}" for part in parts[position + 1 :])


def _joined(base: str, name: str, protocol: str) -> str | None:
    """Return a path without ``.`` and ``..``, or None if it leaves the bucket or the host."""
    parts = base.split("/") if base else []
    names = name.split("/")
    for position, part in enumerate(names):
        if part == "..":
            if len(parts) < 2:
                return None
            parts.pop()
        elif protocol in LOCAL:
            # A slash at the end is not ignored: it means a folder.
            if part != "." and (part or not parts or position == len(names) - 1):
                parts.append(part)
        elif ".." in unquote(part).replace("\\", "/").split("/"):
            return None  # a server may decode it
        elif part != ".":
            parts.append(part)
    return "/".join(parts)
