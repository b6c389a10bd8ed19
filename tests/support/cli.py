"""Run the command line inside the test's process."""

from __future__ import annotations

import inspect

from click.testing import CliRunner

__all__ = ["cli_runner"]


def cli_runner() -> CliRunner:
    """Return a runner that captures stdout and stderr separately, as click 8.2 does by default."""
    separate = "mix_stderr" in inspect.signature(CliRunner).parameters
    return CliRunner(mix_stderr=False) if separate else CliRunner()  # type: ignore[call-arg] # click 8.1
