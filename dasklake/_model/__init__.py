"""The nouns: frozen values that know nothing of storage, Dask or bytes on disk."""
