"""Objects and the log: the only door to storage."""
