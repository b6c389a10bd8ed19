"""Links to files elsewhere: resolving and verifying them."""
