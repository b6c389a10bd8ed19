"""How the values of each htype become what a chunk stores, and back."""
