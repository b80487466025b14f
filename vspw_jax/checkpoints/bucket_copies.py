"""The checkpoints of a workdir in a bucket, one folder a step; a step counts once its manifest is there.

Orbax writes and reads copies of them on this disk. By itself it would write to gs:// alone: it knows no s3://. Of
several processes, each with a disk of its own, the first writes the whole state and all read it.
"""

import pathlib
from collections.abc import Sequence

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import PyTree
from orbax.checkpoint.options import MultiprocessingOptions

from vspw_jax.buckets import mirrors
from vspw_jax.checkpoints import manifest


class BucketCopies:
    """The steps of a folder of checkpoints in a bucket; there are none where the folder is only on this disk."""

    def __init__(self, folder: pathlib.Path) -> None:
        self._folder, self._mirror = folder, mirrors.of(folder)

    @property
    def are_apart(self) -> bool:
        """Whether each of several processes has a folder of its own."""
        return self._mirror is not None and jax.process_count() > 1

    def processes(self) -> MultiprocessingOptions:
        """For Orbax: which processes work on the folder together."""
        if not self.are_apart:
            return MultiprocessingOptions()
        own = jax.process_index()
        return MultiprocessingOptions(
            primary_host=own, active_processes={own}, barrier_sync_key_prefix=f"process_{own}"
        )

    def written_here(self, state: PyTree[jax.Array]) -> PyTree | None:
        """What this process writes of a state: where processes are apart the first one all, on the host."""
        if not self.are_apart:
            return state
        is_first = jax.process_index() == 0
        whole = jax.tree.map(lambda leaf: _whole(leaf) if is_first or not leaf.is_fully_replicated else None, state)
        return whole if is_first else None

    def _objects(self, step: int | str = "") -> list[str]:
        """Names of the objects of all steps, or of one."""
        return list(self._mirror.under(self._name(step))) if self._mirror else []

    def _name(self, step: int | str) -> str:
        return self._mirror.name_of(self._folder / str(step)) if self._mirror else ""

    def steps(self) -> list[int]:
        """Those whose manifest is there."""
        places = [pathlib.PurePosixPath(name) for name in self._objects()]
        return sorted(int(place.parent.name) for place in places if _is_of_step(place) and place.name == manifest.FILE)

    def bring(self, step: int) -> None:
        """Copies a step to this disk, unless it is here."""
        if self._mirror and not (self._folder / str(step)).exists():
            self._mirror.bring(self._mirror.under(self._name(step)))

    def delete(self, steps: Sequence[int]) -> None:
        """Deletes steps in the bucket, the manifest of each first."""
        for step in steps:
            if not self._mirror or jax.process_index():
                return
            self._mirror.remove([f"{self._name(step)}/{manifest.FILE}"])
            self._mirror.remove(self._objects(step))

    def keep_newest(self, count: int) -> None:
        """Deletes all but the newest steps in the bucket."""
        self.delete(self.steps()[:-count])

    def delete_half_written(self) -> None:
        """Deletes what a run has left in the bucket that was killed while it saved."""
        if self._mirror and jax.process_index() == 0:
            whole = {self._name(step) for step in self.steps()}
            self._mirror.remove(name for name in self._objects() if "/".join(name.split("/")[:2]) not in whole)

    def send(self) -> None:
        """Sends what of the workdir has changed beside the checkpoints."""
        if self._mirror:
            self._mirror.push()


def _whole(leaf: jax.Array) -> np.ndarray:
    """An array on the host; all processes call it of one that they share."""
    if leaf.is_fully_replicated:
        return np.asarray(leaf.addressable_data(0))
    return np.asarray(multihost_utils.process_allgather(leaf, tiled=True))


def _is_of_step(place: pathlib.PurePosixPath) -> bool:
    """Whether a place in a workdir is that of a file right in the folder of a step."""
    return len(place.parts) == 3 and place.parent.name.isdecimal()
