"""Test that decoding images one by one uses the same memory again."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

_SCRIPT = """
import io
import resource

import numpy as np
from PIL import Image

from dasklake._media.image import decode_image

file = io.BytesIO()
Image.effect_noise((800, 600), 50).convert("RGB").save(file, "jpeg")
for _ in range(3):
    decode_image(file.getvalue())
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    decode_image(file.getvalue())
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_pixels_need_no_new_memory_for_each_image() -> None:
    """The pixels of 20 images take few new pages; those of one image have 350 pages."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}
    result = subprocess.run(
        [sys.executable, "-c", _SCRIPT], env=environment, capture_output=True, text=True, check=True
    )
    assert int(result.stdout) < 20 * 100
