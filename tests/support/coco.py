"""Fixtures: a generated data set in COCO format, and the real one if it is available."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dasklake
from examples.shapes import ShapeSet, Truth, make_shapes


@pytest.fixture(scope="session")
def shapes() -> ShapeSet:
    """Make 40 images with every special case of the real files."""
    return make_shapes(40, seed=7)


@pytest.fixture
def document(shapes: ShapeSet) -> dict[str, Any]:
    """Copy the annotation document, for tests that corrupt it."""
    return copy.deepcopy(shapes.document)


def check_shapes(lake: dasklake.Lake, expected: dict[int, Truth]) -> None:
    """Compare every sample with the results of pycocotools, in input order."""
    names = lake.schema["categories"].class_names
    assert len(lake) == len(expected)
    for row, want in enumerate(expected.values()):
        sample = lake[row]
        assert [names[label] for label in sample["categories"]] == want.names
        assert np.array_equal(sample["boxes"], want.boxes)
        assert sample["masks"].dtype == bool
        assert np.array_equal(sample["masks"], want.masks)


@pytest.fixture(scope="session")
def coco_dir() -> Path:
    """Return the folder of the real data, or skip the test."""
    if "DASKLAKE_COCO_DIR" not in os.environ:
        pytest.skip("DASKLAKE_COCO_DIR is not set")
    return Path(os.environ["DASKLAKE_COCO_DIR"])


def pytest_configure(config: pytest.Config) -> None:
    """Ignore warnings that pycocotools raises on every decode."""
    config.addinivalue_line(
        "filterwarnings",
        "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning",
    )
