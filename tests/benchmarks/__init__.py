"""Measure the cost of dasklake, as ratios of alternating runs on one machine."""
