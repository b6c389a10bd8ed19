"""The samples and tensors that a lake or a view of it reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from dasklake._api.other_words import unknown_attribute
from dasklake._read.reader import Reader
from dasklake._read.rows import Rows
from dasklake._schema.schema import Schema


class SampleSet:
    """Samples and tensors of one version of a lake.

    The methods that read are defined once, for :class:`Lake` and :class:`View`, in terms of the
    attributes of this class.
    """

    _reader: Reader

    if not TYPE_CHECKING:  # type checkers must find wrong names, too

        def __getattr__(self, name: str) -> NoReturn:
            # Called if there is no such attribute, or if a property raised an AttributeError. Python
            # asks for special names while it copies.
            if name.startswith("_") or hasattr(type(self), name):
                raise AttributeError(name)
            raise unknown_attribute(name, list(self.schema), dir(self))

    def flush(self) -> None:
        """Commit the changes that a ``with`` block has collected."""

    @property
    def _rows(self) -> Rows:
        """Numbers of the samples in the version, in the order in which they are read."""
        return range(self._reader.samples)

    @property
    def _names(self) -> list[str]:
        """The tensors, in order."""
        return list(self._reader.schema)

    @property
    def schema(self) -> Schema:
        """The tensors by name."""
        return self._reader.schema

    def _rows_of(self, names: list[str]) -> Rows:
        """Return the numbers of the samples that have some tensors.

        A lake has fewer samples than one of its tensors while a new tensor is empty.
        """
        return range(self._reader.origin.length(names))

    def _columns(self, columns: Any = None) -> list[str]:
        """Validate the names of tensors; None means all.

        Raises
        ------
        InvalidInputError
            ``columns`` is not a list of strings.
        VersionNotFoundError
            There is no tensor of a name in ``columns``.
        """
        return self._reader.names(columns)
