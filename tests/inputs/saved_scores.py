"""Saved scores that no network should have made."""

import numpy as np


def with_one(path, value, name="values"):
    """Puts a number into the last pixel of an array in a frame's file."""
    with np.load(path) as file:
        parts = dict(file)
    parts[name].flat[-1] = value
    np.savez(path, **parts)
