"""What buckets cost, and what a run in one survives; servers for it run on this machine."""
