"""What a lake can do with links: look at them again, take their bytes in, and name credentials."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from dasklake import creds
from dasklake._api.lake_base import LakeBase
from dasklake._api.write import WriteReport, to_lake
from dasklake._log.creds_keys import add_key, check_keys, update_key
from dasklake._read.graph import to_bag, to_link_problems
from dasklake._read.linked_values import Problem, fetched, unwrapped
from dasklake._schema.schema import Schema, TensorSpec
from dasklake.exceptions import InvalidInputError, SchemaError

__all__ = ["LinkMethods"]


class LinkMethods(LakeBase):
    """Links are looked at again or replaced by what they point to; credentials keys are named."""

    @property
    def creds_keys(self) -> list[str]:
        """Names of the credentials keys that the lake knows."""
        return list(self._commit.creds)

    def add_creds_key(self, name: str, *, managed: bool = False) -> None:
        """Name a credentials key that links may use. Only the name is stored.

        Parameters
        ----------
        name : str
            The key, as in ``dasklake.link(url, creds_key=name)``.
        managed : bool, default False
            Whether each process finds the values by itself (in Dask's configuration, or by an
            entry point of the group ``dasklake.creds``), so that only the workers need to know
            them. Otherwise this process has to know them before a job starts.

        Raises
        ------
        InvalidInputError
            There is a key of that name, or it is none.

        Examples
        --------
        >>> import dasklake
        >>> lake = dasklake.empty("memory://keys")
        >>> lake.add_creds_key("coco")
        >>> lake.populate_creds("coco", {"anon": True})
        >>> lake.creds_keys
        ['coco']
        """
        add_key(self._log, self._log.require_head(), name, managed=managed)
        self.refresh()

    def update_creds_key(
        self, name: str, new_name: str | None = None, *, managed: bool | None = None
    ) -> None:
        """Give a credentials key another name, or say anew where its values come from.

        Links that were written with the old name are read with the new one.

        Parameters
        ----------
        name : str
            The key.
        new_name : str, optional
            Its new name.
        managed : bool, optional
            As for :meth:`add_creds_key`.

        Raises
        ------
        VersionNotFoundError
            There is no such key.
        InvalidInputError
            The new name is taken.
        """
        update_key(self._log, self._log.require_head(), name, new_name, managed=managed)
        self.refresh()

    def populate_creds(
        self,
        name: str,
        values: Mapping[str, Any] | Any = None,
        *,
        from_environment: bool = False,
    ) -> None:
        """Give a credentials key its values, in this process only.

        Workers of a cluster look values up for themselves: see the page on credentials.

        Parameters
        ----------
        name : str
            The key.
        values : mapping or callable
            AWS's names (``aws_access_key_id``, ``aws_secret_access_key``, ``aws_session_token``,
            ``aws_region``, ``aws_profile``, ``endpoint_url``), or what fsspec takes; or a function
            that returns it, called again shortly before its ``"expiration"``.
        from_environment : bool, default False
            Take what the storage's own library finds in the environment.

        Raises
        ------
        InvalidInputError
            The lake does not know the key, the key is managed, or there are no values.
        """
        key = self._commit.creds.get(name)
        if key is None or key.managed:
            what = "is managed: each process finds its values" if key else "is not known"
            raise InvalidInputError(
                f"The credentials key {name!r} {what}. Use lake.add_creds_key({name!r}), or "
                f"lake.update_creds_key({name!r}, managed=False)."
            )
        if (values is None) is not from_environment:
            raise InvalidInputError("Give either values or from_environment=True.")
        creds.populate(name, {} if from_environment else values)

    def check_links(
        self, tensors: Sequence[str] | None = None, *, decode: bool = False
    ) -> pd.DataFrame:
        """Look at all links again, in parallel on the current Dask scheduler.

        Parameters
        ----------
        tensors : sequence of str, optional
            Tensors of links; left out, all of them.
        decode : bool, default False
            Whether to fetch and decode all of each target; else its first and last bytes are read.

        Returns
        -------
        pandas.DataFrame
            One row for each problem: sample, tensor, url, creds_key, problem (``"broken"``: gone,
            not what it should be, or not whole; ``"changed"``: another size or etag than when it
            was written; ``"denied"``), message.

        Raises
        ------
        InvalidInputError
            A tensor does not hold links.
        StoreError
            A storage does not answer, or there are no credentials under a key.
        """
        names = self._linked(tensors)
        check_keys(self._commit, managed=False)
        groups = self._reader.groups(names)
        found = to_link_problems(self._reader.origin, groups, names, decode=decode).compute()
        rows = [problem for part in found for problem in part]
        frame = pd.DataFrame(rows, columns=pd.Index(Problem._fields))
        return frame.astype(
            {name: "int64" if name == "sample" else "string" for name in Problem._fields}
        )

    def materialize_links(
        self,
        url: str | os.PathLike[str],
        tensors: Sequence[str] | None = None,
        *,
        compression: str | None = None,
        **how: Any,
    ) -> WriteReport:
        """Write a lake that holds the bytes which this one links to.

        Parameters
        ----------
        url : str or os.PathLike
            Where the new lake is to lie.
        tensors : sequence of str, optional
            Tensors of links; left out, all of them. Others stay links.
        compression : str, optional
            Format of the files in the new lake. Files of that format are taken as they are, others
            are decoded and encoded; left out, what the tensor's ``compression`` says.
        **how
            Further arguments of :func:`dasklake.to_lake`, such as ``mode``, ``on_error`` or
            ``storage_options``.

        Returns
        -------
        WriteReport
            What was written.

        Raises
        ------
        InvalidInputError
            A tensor does not hold links.
        SchemaError
            The compression of a tensor is not known.
        TransformError
            A target cannot be fetched; it can be skipped with ``on_error="skip"``.
        """
        names = self._linked(tensors)
        specs = {
            name: _embedded(name, spec, compression) if name in names else spec
            for name, spec in self.schema.items()
        }
        check_keys(self._commit, managed=False)
        columns = list(self.schema)
        bag = to_bag(self._reader.origin, self._reader.groups(columns), columns)
        how = {"input_id": f"{self.url}@{self._commit.id}", **how}
        report: WriteReport = to_lake(
            bag.map_partitions(fetched, names),
            url,
            schema=Schema(specs).settled,
            transform=unwrapped,
            **how,
        )
        return report

    def _linked(self, tensors: Sequence[str] | None) -> list[str]:
        """Return the names of the tensors of links that were asked for."""
        linked = [name for name, spec in self.schema.items() if spec.linked]
        names = linked if tensors is None else self._reader.names(tensors)
        for name in names:
            if name not in linked:
                known = ", ".join(map(repr, linked)) or "none"
                raise InvalidInputError(f"Tensor {name!r} holds no links. Those that do: {known}.")
        return names


def _embedded(name: str, spec: TensorSpec, compression: str | None) -> TensorSpec:
    """Return the spec of a tensor that holds what another one links to."""
    found = compression or spec.compression
    if found is None and spec.kind.must_compress:
        raise SchemaError(
            f"Tensor {name!r} does not say how its targets are encoded. Give compression='jpeg', "
            "or another."
        )
    htype = spec.htype.removeprefix("link[").removesuffix("]")
    return replace(
        spec,
        htype=htype,
        compression=found,
        verify=None,
        create_shape_tensor=None,
        create_sample_info_tensor=None,
    )
