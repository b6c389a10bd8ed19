"""Objects on storage, behind one interface."""
