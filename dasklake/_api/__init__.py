"""The public functions and classes, and the command line."""
