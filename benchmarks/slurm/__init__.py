"""A SLURM cluster of this machine alone, started from nothing, and the launcher tried on it."""
