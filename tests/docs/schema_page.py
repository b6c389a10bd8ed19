"""The JSON Schema of the documents, for the specification.

``python -m tests.docs.schema_page`` writes it.
"""

from __future__ import annotations

import json
from pathlib import Path

from dasklake._format.documents import json_schema

__all__ = ["PAGE", "schema_text"]

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "documents.schema.json"


def schema_text() -> str:
    """Return the file as it should be: the summary line of each docstring describes its object."""
    document = json_schema()
    for definition in document["$defs"].values():
        if "description" in definition:
            definition["description"] = definition["description"].splitlines()[0]
    return json.dumps(document, indent=1) + "\n"


if __name__ == "__main__":
    PAGE.write_text(schema_text())
