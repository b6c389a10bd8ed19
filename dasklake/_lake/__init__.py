"""What a lake's handle can do, by purpose; :class:`dasklake.Lake` is all of it."""
