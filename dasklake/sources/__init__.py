"""Complete jobs for well-known data sets, each with an optional dependency of its own."""
