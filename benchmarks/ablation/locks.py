"""Who works in a study's folder: seeds are made beside each other, by several programs, what they share in turn.

DIR/<study>/lock          held for a moment, by whoever draws the data or writes the results
DIR/<study>/lock.seed_3   held by the program that makes the runs of a seed, and by their own programs
"""

import contextlib
import fcntl
import pathlib
from collections.abc import Iterator, Sequence

from vspw_jax.console.errors import UserError


@contextlib.contextmanager
def in_turn(folder: pathlib.Path) -> Iterator[None]:
    """Within the block no other program writes what the seeds of a study share; waits for the one that does.

    Raises:
      UserError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
    except (NotADirectoryError, FileExistsError) as error:
        raise UserError(f"{error.filename} is a file: expected a folder. Choose another --output=DIR.") from error


@contextlib.contextmanager
def alone(folder: pathlib.Path, seeds: Sequence[int]) -> Iterator[list[int]]:
    """Holds some seeds, as file descriptors to hand on: a run that outlives this program holds them on.

    Raises:
      UserError: another process holds one of them.
    """
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context((folder / f"lock.seed_{seed}").open("w")) for seed in seeds]
        for seed, lock in zip(seeds, held, strict=True):
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(
                    f"Another process works on seed {seed} in {folder}. Wait until it ends, or end it."
                ) from None
        yield [lock.fileno() for lock in held]
