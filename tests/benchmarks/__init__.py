"""What dasklake costs, as ratios of runs that took turns on one machine."""
