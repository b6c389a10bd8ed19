"""Methods of ``Lake`` for links: credentials keys, checks, and copies of the linked files."""

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
from dasklake._run.options import LinkPolicy, parse_links
from dasklake._schema.argument_types import check_arguments
from dasklake._schema.schema import Schema, TensorSpec
from dasklake.exceptions import InvalidInputError, SchemaError


@check_arguments
class LinkMethods(LakeBase):
    """Manage credentials keys, check links, and replace them by the linked files."""

    @property
    def creds_keys(self) -> list[str]:
        """Names of the credentials keys of the lake."""
        return list(self._commit.creds)

    def add_creds_key(self, name: str, *, managed: bool = False) -> None:
        """Add a credentials key for links. Only its name is stored.

        A key that exists with the same settings is left as it is, so that a script can run twice.

        Parameters
        ----------
        name : str
            Name of the key, as in ``dasklake.link(url, creds_key=name)``.
        managed : bool, default False
            Whether each process finds the values itself: in the Dask configuration, or by an entry
            point of the group ``dasklake.creds``. Then only the workers need the values. Otherwise
            this process must have them before a job starts.

        Raises
        ------
        InvalidInputError
            ``name`` is not a valid name, the lake has the key with another ``managed``, or the name
            was renamed and samples may still have links with it.

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
        """Rename a credentials key, or change where its values come from.

        Links that were written with the old name use the new one.

        Parameters
        ----------
        name : str
            Name of the key.
        new_name : str, optional
            New name of the key.
        managed : bool, optional
            As for :meth:`add_creds_key`.

        Raises
        ------
        VersionNotFoundError
            The lake does not have a key ``name``.
        InvalidInputError
            ``new_name`` is the name of another key.
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
        """Set the values of a credentials key in this process.

        Processes that :meth:`Pipeline.eval` starts get them, too. The workers of your own cluster
        find the values themselves; see the page on credentials.

        Parameters
        ----------
        name : str
            Name of the key.
        values : mapping or callable
            AWS's names (``aws_access_key_id``, ``aws_secret_access_key``, ``aws_session_token``,
            ``aws_region``, ``aws_profile``, ``endpoint_url``), or storage options of fsspec, or a
            function that returns them. It is called again shortly before their ``"expiration"``.
        from_environment : bool, default False
            Use the credentials that the storage library finds in the environment.

        Raises
        ------
        InvalidInputError
            The lake does not have the key, the key is managed, or values are missing.
        """
        key = self._commit.creds.get(name)
        if key is None or key.managed:
            problem = "is managed: each process finds its values" if key else "is unknown"
            raise InvalidInputError(
                f"The credentials key {name!r} {problem}. Use lake.add_creds_key({name!r}), or "
                f"lake.update_creds_key({name!r}, managed=False)."
            )
        if (values is None) is not from_environment:
            raise InvalidInputError("Give either values or from_environment=True.")
        creds.populate(name, {} if from_environment else values)

    def check_links(
        self,
        tensors: Sequence[str] | None = None,
        *,
        decode: bool = False,
        links: LinkPolicy | None = None,
    ) -> pd.DataFrame:
        """Check all links in parallel, on the current Dask scheduler.

        Parameters
        ----------
        tensors : sequence of str, optional
            Names of link tensors. By default, all.
        decode : bool, default False
            Fetch and decode each target. By default, only its first and last bytes are read.
        links : LinkPolicy, optional
            Limits for reading the targets. By default, those of :func:`dasklake.open`.

        Returns
        -------
        pandas.DataFrame
            One row per problem: sample, tensor, url, creds_key, problem, message. The problem is
            ``"broken"`` (the target is missing, of another format, or truncated), ``"changed"``
            (its size or etag is not that of the write), ``"denied"`` (access is denied) or
            ``"unavailable"`` (a web host did not deliver it within the limits).

        Raises
        ------
        InvalidInputError
            A tensor does not contain links.
        StoreError
            A storage does not respond, or a credentials key has no values.
        """
        names = self._linked(tensors)
        check_keys(self._commit, managed=False)
        groups = self._reader.groups(names)
        limits = parse_links(links, self._links)
        origin = self._reader.origin
        parts = to_link_problems(origin, groups, names, decode=decode, limits=limits).compute()
        rows = [problem for part in parts for problem in part]
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
        **options: Any,
    ) -> WriteReport:
        """Write a copy of the lake that contains the linked files.

        Parameters
        ----------
        url : str or os.PathLike
            Root of the new lake.
        tensors : sequence of str, optional
            Names of link tensors. By default, all. Other tensors keep their links.
        compression : str, optional
            Format of the files in the new lake, by default the tensor's ``compression``. Files of
            that format are copied unchanged; others are decoded and encoded.
        **options
            Further arguments of :func:`dasklake.to_lake`, such as ``mode``, ``on_error``,
            ``links`` or ``storage_options``.

        Returns
        -------
        WriteReport
            Result of the write.

        Raises
        ------
        InvalidInputError
            A tensor does not contain links.
        SchemaError
            The compression of a tensor is unknown.
        TransformError
            A target cannot be fetched. With ``on_error="skip"`` it is skipped.
        """
        self.flush()
        names = self._linked(tensors)
        specs = {
            name: _embedded(name, spec, compression) if name in names else spec
            for name, spec in self.schema.items()
        }
        check_keys(self._commit, managed=False)
        columns = list(self.schema)
        bag = to_bag(self._reader.origin, self._reader.groups(columns), columns)
        identity = f"{self.url}@{self._commit.id}"
        options = {"input_id": identity, "links": self._links, **options}
        limits = parse_links(options["links"])
        report: WriteReport = to_lake(
            bag.map_partitions(fetched, names, limits),
            url,
            schema=Schema(specs).with_all_names_settled,
            transform=unwrapped,
            **options,
        )
        return report

    def _linked(self, tensors: Sequence[str] | None) -> list[str]:
        """Return the names of the selected link tensors."""
        linked = [name for name, spec in self.schema.items() if spec.linked]
        names = linked if tensors is None else self._reader.names(tensors)
        for name in names:
            if name not in linked:
                choices = ", ".join(map(repr, linked)) or "none"
                raise InvalidInputError(
                    f"Tensor {name!r} does not contain links. Link tensors: {choices}."
                )
        return names


def _embedded(name: str, spec: TensorSpec, compression: str | None) -> TensorSpec:
    """Return the spec of a tensor that contains the files of a link tensor."""
    format_ = compression or spec.compression
    if format_ is None and spec.kind.must_compress:
        raise SchemaError(
            f"The format of the files of tensor {name!r} is unknown. Give compression='jpeg', or "
            "another format."
        )
    htype = spec.htype.removeprefix("link[").removesuffix("]")
    return replace(
        spec,
        htype=htype,
        compression=format_,
        verify=None,
        create_shape_tensor=None,
        create_sample_info_tensor=None,
    )
