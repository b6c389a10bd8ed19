"""The data model: frozen values that do not depend on storage, Dask or stored bytes."""
