"""Configure Sphinx."""

import os
import tomllib
from pathlib import Path

_PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]

project = _PROJECT["name"]
author = copyright = _PROJECT["authors"][0]["name"]
release = version = _PROJECT["version"]

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.viewcode",
    "sphinx_design",
]
exclude_patterns = ["_build"]
nitpicky = False

# Inventories are fetched on request only: `DASKLAKE_INTERSPHINX=1 make docs`. Without them the
# build needs no network, and references to other projects are plain text.
intersphinx_mapping = {
    name: (f"https://{address}/", None)
    for name, address in {
        "python": "docs.python.org/3",
        "dask": "docs.dask.org/en/stable",
        "distributed": "distributed.dask.org/en/stable",
        "numpy": "numpy.org/doc/stable",
        "pandas": "pandas.pydata.org/docs",
        "pyarrow": "arrow.apache.org/docs",
    }.items()
    if "DASKLAKE_INTERSPHINX" in os.environ
}

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_typehints = "none"
autodoc_member_order = "groupwise"
numpydoc_show_class_members = False
numpydoc_xref_param_type = False

html_theme = "furo"
html_title = f"{project} {release}"
html_show_sphinx = False
