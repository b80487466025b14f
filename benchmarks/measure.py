"""How the benchmarks take times and memory."""

import ctypes
import os
import pathlib
import statistics
import sys

ALLOCATOR = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**62)}
"""By these glibc keeps freed memory: by default it goes back to the system after every pass, which costs PyTorch more
than JAX. For times, not for memory."""


def keep_freed_memory(module):
    """Starts the benchmark `module` anew under `ALLOCATOR`, unless it runs under it."""
    if not os.environ.keys() >= ALLOCATOR.keys():
        os.execve(sys.executable, [sys.executable, "-m", module, *sys.argv[1:]], os.environ | ALLOCATOR)


def plain_environment():
    """The environment without `ALLOCATOR`, for processes that measure memory."""
    return {key: value for key, value in os.environ.items() if key not in ALLOCATOR}


def take_turns(functions, rounds, clock):
    """Median seconds by `clock` of each function, called in turn after one call to warm up."""
    for function in functions:
        function()
    seconds = [[] for _ in functions]
    for _ in range(rounds):
        for function, times in zip(functions, seconds, strict=True):
            started = clock()
            function()
            times.append(clock() - started)
    return [statistics.median(times) for times in seconds]


def process_memory(field):
    """A line of /proc/self/status, in MiB."""
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) / 1024


def gained_memory(step):
    """MiB that the process gains in one call of `step`, at the peak."""
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # What loading and compilation left.
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # The peak is counted from here on.
    before = process_memory("VmRSS")
    step()
    return process_memory("VmHWM") - before
