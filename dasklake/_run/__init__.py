"""Execution of runs: start, coordination, commits and outcome, on every kind of scheduler."""
