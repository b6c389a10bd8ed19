"""The specification in code: names and bytes of the objects of a lake, no input or output."""
