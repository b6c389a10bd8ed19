"""Methods that summarize tensors."""

from __future__ import annotations

from typing import Any, overload

import pandas as pd

from dasklake._api.sample_set import SampleSet
from dasklake._read.summary import summarize
from dasklake._schema.argument_types import check_arguments

#: Columns of the table of all tensors, in this order.
_COLUMNS = (
    *("count", "nulls", "nan", "min", "max", "classes"),
    *("objects", "min_objects", "max_objects", "min_shape", "max_shape"),
)


@check_arguments
class StatsMethods(SampleSet):
    """Summarize tensors, mostly without opening chunks."""

    @overload
    def stats(self, tensor: str) -> dict[str, Any]: ...

    @overload
    def stats(self, tensor: None = None) -> pd.DataFrame: ...

    def stats(self, tensor: str | None = None) -> dict[str, Any] | pd.DataFrame:
        """Return counts and bounds of a tensor, or of all tensors.

        Writers store statistics of each chunk beside its reference. Only chunks that lack them are
        opened: those that earlier releases wrote, or that are read in part. Of these, only the
        tensors that need it are fetched, and of images, masks and boxes only their shapes.

        Parameters
        ----------
        tensor : str, optional
            Name of a tensor. By default, all.

        Returns
        -------
        dict or pandas.DataFrame
            For one tensor, the entries below that it has. For all tensors, a frame with one row
            for each, and missing values for entries that it does not have.

            - ``count``, ``nulls``: number of samples with and without a value.
            - ``nan``: number of values that are NaN or NaT, for numbers with a fraction and times.
            - ``min``, ``max``: least and largest value of scalars, without NaN; None if there is no
              value. Text is compared by code points.
            - ``classes``: for class labels, the number of labels of each class that occurs, by name,
              or by index if the tensor has no class names.
            - ``objects``, ``min_objects``, ``max_objects``: number of objects in total, and in a
              value, for boxes, masks, keypoints, points and lists.
            - ``min_shape``, ``max_shape``: least and largest length of each axis, for values with
              other ragged axes, such as images.

        Raises
        ------
        VersionNotFoundError
            The version does not have the tensor.
        InvalidInputError
            ``tensor`` is not a string.
        CorruptionError
            A chunk that must be read is damaged.

        Examples
        --------
        >>> import dasklake
        >>> lake = dasklake.empty("memory://stats")
        >>> lake.create_tensor("label", "class_label", shape=(), class_names=["cat", "dog"])
        >>> lake.create_tensor("weight", dtype="float32", shape=())
        >>> lake.extend([{"label": "dog", "weight": 4.5}, {"label": "dog", "weight": float("nan")}])
        >>> lake.stats("label")
        {'count': 2, 'nulls': 0, 'classes': {'dog': 2}}
        >>> lake.stats("weight")["nan"]
        1
        >>> lake.stats()[["count", "nan", "max"]]
                count   nan   max
        label       2  <NA>  None
        weight      2     1   4.5
        """
        self.flush()
        names = self._columns(None if tensor is None else [tensor])
        if tensor is not None:
            return summarize(self._reader, self._rows_of(names), names)[tensor]
        # New tensors are empty until samples that have them are written.
        filled = [name for name in names if len(self._rows_of([name]))]
        empty = [name for name in names if name not in filled]
        summaries = summarize(self._reader, self._rows_of(filled), filled) if filled else {}
        summaries |= summarize(self._reader, range(0), empty)
        return _table({name: summaries[name] for name in names})


def _table(summaries: dict[str, dict[str, Any]]) -> pd.DataFrame:
    """Return summaries as a frame. Counts stay integers."""
    counts = {"count", "nulls", "nan", "objects", "min_objects", "max_objects"}
    columns = {
        key: pd.Series(
            [summary.get(key) for summary in summaries.values()],
            index=list(summaries),
            dtype="Int64" if key in counts else object,
        )
        for key in _COLUMNS
    }
    return pd.DataFrame(columns)
