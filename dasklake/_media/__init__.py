"""Readers of media files: recognizing, header, content."""
