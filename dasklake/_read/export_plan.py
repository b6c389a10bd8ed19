"""The files of an export, so that a repeated call continues an interrupted one."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from dasklake._storage.store import ObjectStore
from dasklake.exceptions import InvalidInputError

#: Object that names the samples of an export. It is written first, so that files of two exports never
#: mix. Readers of Parquet and tar files ignore the name.
_PLAN = "_dasklake-export.json"


@dataclass(frozen=True)
class ExportPlan:
    """The files of an export. Each of them appears whole or not at all.

    Attributes
    ----------
    store : ObjectStore
        The folder.
    files : int
        Number of files.
    suffix : str
        Extension of the files, with the dot.
    identity : str
        Digest of the samples and their division into files.
    """

    store: ObjectStore
    files: int
    suffix: str
    identity: str

    def begin(self) -> None:
        """Write the plan, or check that the folder has the same one.

        Raises
        ------
        InvalidInputError
            The folder has an export of other samples.
        """
        plan = {"identity": self.identity, "files": self.files, "suffix": self.suffix}
        if not self.store.exists(_PLAN):
            self.store.put(_PLAN, json.dumps(plan).encode())
            return
        try:
            existing = json.loads(self.store.get(_PLAN))
        except ValueError:
            existing = None
        if existing != plan:
            raise InvalidInputError(
                f"{self.store.url} has an export of other samples. Give another folder, or delete "
                "this one."
            )

    def missing(self) -> list[int]:
        """Return the numbers of the files that do not exist yet."""
        existing = set(self.store.names(""))
        return [number for number in range(self.files) if self._key(number) not in existing]

    def put(self, number: int, data: Any) -> None:
        """Write a file."""
        self.store.put(self._key(number), data)

    def _key(self, number: int) -> str:
        return f"{number:06d}{self.suffix}"
