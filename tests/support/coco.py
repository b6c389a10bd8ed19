"""Fixtures: the generated data set in the form of COCO, and the real one where it lies."""

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
    """Make 40 images with every trap of the real files."""
    return make_shapes(40, seed=7)


@pytest.fixture
def document(shapes: ShapeSet) -> dict[str, Any]:
    """Copy the annotation file, for tests that spoil it."""
    return copy.deepcopy(shapes.document)


def check_shapes(lake: dasklake.Lake, expected: dict[int, Truth]) -> None:
    """Compare every sample with what pycocotools says, in the order of the input."""
    names = lake.schema["categories"].class_names
    assert len(lake) == len(expected)
    for row, want in enumerate(expected.values()):
        found = lake[row]
        assert [names[label] for label in found["categories"]] == want.names
        assert np.array_equal(found["boxes"], want.boxes)
        assert found["masks"].dtype == bool
        assert np.array_equal(found["masks"], want.masks)


@pytest.fixture(scope="session")
def coco_dir() -> Path:
    """Return the folder of the real data, or skip."""
    if "DASKLAKE_COCO_DIR" not in os.environ:
        pytest.skip("DASKLAKE_COCO_DIR is not set")
    return Path(os.environ["DASKLAKE_COCO_DIR"])


def pytest_configure(config: pytest.Config) -> None:
    """Let pass what pycocotools does on every decode and its users cannot change."""
    config.addinivalue_line(
        "filterwarnings",
        "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning",
    )
