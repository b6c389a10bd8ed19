"""Codecs: one value of a tensor to bytes, and back."""
