"""Whole jobs for well-known inputs, each behind an extra of its own."""
