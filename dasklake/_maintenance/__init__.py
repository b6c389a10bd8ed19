"""Maintain a lake: reset, vacuum, compact and verify. Each reads all versions again."""
