"""Rules of the commit protocol, taken out of the code one at a time, to see whether a test notices."""
