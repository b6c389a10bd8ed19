"""Codecs: encode one value of a tensor to its stored form, and decode it."""
