"""Test suites that any backend has to pass; they need pytest."""
