"""Ablations: the arms of a study trained with every seed, and the differences between them with their intervals."""
