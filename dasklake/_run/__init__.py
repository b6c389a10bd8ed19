"""A run from its beginning over its commits to its end, and the places where it is coordinated."""
