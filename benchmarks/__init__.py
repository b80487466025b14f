"""Side-by-side measurements; each prints a ratio against a peer in the same run."""
