"""The numbers of the samples that are read."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

#: Numbers of samples in a version, in the order in which they are read. A range has step 1.
Rows = range | npt.NDArray[np.int64]
