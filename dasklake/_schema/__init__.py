"""Htypes, tensor specs, schemas and values."""
