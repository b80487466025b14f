"""Short runs in a bucket, each start a process of its own; those of `benchmarks.faults`."""

import contextlib
import multiprocessing
import os
import pathlib
import shutil
import signal
import time

from benchmarks import faults
from benchmarks.buckets import servers
from vspw_jax.buckets import cache, workdirs
from vspw_jax.buckets.remote_folder import RemoteFolder
from vspw_jax.console import ending

WRITES = ("PUT", "POST")


class Runs:
    """Starts of a run whose records and workdir are in a bucket.

    Attributes:
      records: the address of the records, which `folder` holds too.
      output: what starts have printed.
      reference: the weights of a run on this disk that nothing disturbed.
    """

    def __init__(self, kind: str, line: servers.Line, folder: pathlib.Path) -> None:
        self.line, self.output = line, folder / "output.txt"
        os.environ.update(servers.variables(kind, line.url), **{cache.VARIABLE: str(folder / "cache")})
        self.bucket = f"{kind}://{servers.BUCKET}"
        self.records = f"{self.bucket}/the records"
        self._processes = multiprocessing.get_context("spawn")
        here = faults.draw_records(folder)
        names = [str(path.relative_to(here)) for path in here.rglob("*") if path.is_file()]
        RemoteFolder(self.records).upload_all(here, names)
        undisturbed = folder / "undisturbed"
        process = self._processes.Process(target=faults.run, args=(undisturbed, here, self.output, True))
        process.start()
        process.join()
        self.reference = faults.weights(undisturbed)

    def start(self, workdir: str, kill_before: int = 0, what: str = "") -> tuple[int | None, float]:
        """(exit status, seconds) of a start.

        Args:
          kill_before: SIGKILL ends it before the write of that number reaches the server, counting from 1.
          what: a part of the names of the writes that count.
        """
        began = time.monotonic()
        process = self._processes.Process(target=faults.run, args=(workdir, self.records, self.output, True))
        process.start()
        left = [kill_before]

        def watch(method: str, path: str) -> None:
            left[0] -= method in WRITES and what in path
            if kill_before and left[0] == 0:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGKILL)
                time.sleep(0.05)

        self.line.watch = watch
        process.join()
        self.line.watch = lambda method, path: None
        return process.exitcode, time.monotonic() - began

    def weights(self, workdir: str) -> bytes:
        """Of the newest checkpoint."""
        try:
            return faults.weights(workdirs.opened(workdir).folder)
        finally:
            ending.reached()

    def steps(self, workdir: str) -> tuple[list[int], list[int]]:
        """(steps of whole checkpoints, steps of those that are not whole)."""
        names = [name.split("/") for name in RemoteFolder(f"{workdir}/checkpoints").objects()]
        whole = {int(step) for step, *rest in names if rest == ["manifest.json"]}
        return sorted(whole), sorted({int(step) for step, *_ in names} - whole)

    def forget_copies(self) -> None:
        """Deletes this disk's copies, as on another machine."""
        shutil.rmtree(cache.folder(), ignore_errors=True)
