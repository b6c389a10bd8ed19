"""Measure the cost of strict validation: the same samples encoded with strict and basic checks."""

from __future__ import annotations

import statistics
import time
from typing import Any

import numpy as np

from dasklake import Schema, TensorSpec
from dasklake._write.encoder import Encoder
from tests.benchmarks.common import dense, load

SAMPLES, PAIRS = 400, 9


def main() -> None:
    """Print the ratio of strict to basic validation, for COCO samples and for large embeddings."""
    source = load()
    coco = [dense(number, source) for number in range(SAMPLES)]
    specs = {k: v for k, v in source.schema.items() if k != "images"}
    specs["categories"] = TensorSpec(
        "class_label", shape=(None,), class_names=specs["categories"].class_names
    )
    samples = [{name: sample[name] for name in specs} for sample in coco]
    _compare(
        f"{source.name} COCO",
        Schema(specs, same_length=list(specs)),
        Schema(specs),
        samples,
    )
    vectors = np.random.default_rng(0).random((20_000, 768), "float32")
    plain = Schema({"x": TensorSpec("embedding", shape=(768,))})
    _compare("embeddings", plain, plain, [{"x": vector} for vector in vectors])


def _compare(label: str, strict: Schema, basic: Schema, samples: list[Any]) -> None:
    encoders = {True: Encoder(strict), False: Encoder(basic, strict=False)}
    ratios: list[float] = []
    noise: list[float] = []
    costs: dict[bool, float] = {}
    for pair in range(PAIRS):
        for key in (True, False) if pair % 2 else (False, True):
            costs[key] = _seconds(encoders[key], samples)
        ratios.append(costs[True] / costs[False])
        noise.append(_seconds(encoders[False], samples) / costs[False])
    print(
        f"{label}: strict takes {statistics.median(ratios):.3f} times as long as basic "
        f"(basic against itself {min(noise):.3f} to {max(noise):.3f}), "
        f"{1e6 * costs[True] / len(samples):.1f} us a sample"
    )


def _seconds(encoder: Encoder, samples: list[Any]) -> float:
    began = time.process_time()
    for sample in samples:
        encoder.encode(sample)
    return time.process_time() - began
