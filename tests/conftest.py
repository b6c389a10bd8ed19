"""Hypothesis profiles, and the fixtures that several folders of tests share."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# A deadline measures the machine, not the code; shared machines have slow moments.
_COMMON = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

settings.register_profile("default", _COMMON, max_examples=30)
# The same examples on every run: a change that breaks something is the change's own fault.
settings.register_profile("ci", _COMMON, max_examples=60, derandomize=True, print_blob=True)
settings.register_profile("deep", _COMMON, max_examples=2_000, stateful_step_count=100)
settings.load_profile(
    os.environ.get("HYPOTHESIS_PROFILE", "ci" if "CI" in os.environ else "default")
)

# A script that starts pytest in the background makes it ignore Ctrl-C. The clients that tests
# interrupt would inherit this.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# They import each other, in any order: said before the first of them is loaded.
pytest.register_assert_rewrite("tests.support")

# Each module of tests/support that defines fixtures is a plugin: none has to be named here.
pytest_plugins = [
    f"tests.support.{path.stem}"
    for path in sorted((Path(__file__).parent / "support").glob("*.py"))
    if not path.stem.startswith("_")
]
