"""How the benchmarks take times and memory."""

import ctypes
import os
import pathlib
import sys
import time

import numpy as np

ALLOCATOR = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**62)}
"""By these glibc keeps freed memory: by default it goes back to the system after every pass, which costs PyTorch more
than JAX. For times, not for memory."""

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def add_timing_flags(parser):
    """How often, on how many cores, and by which of `CLOCKS` times are taken."""
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument(
        "--clock", choices=CLOCKS, default="wall", help="cpu: with 1 thread, where others use the cores"
    )


def keep_to_cores(count):
    """Before the first computation: thread pools are sized by the cores that the process may use."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])


def keep_freed_memory(module):
    """Starts the benchmark `module` anew under `ALLOCATOR`, unless it runs under it."""
    if not os.environ.keys() >= ALLOCATOR.keys():
        os.execve(sys.executable, [sys.executable, "-m", module, *sys.argv[1:]], os.environ | ALLOCATOR)


def plain_environment():
    """The environment without `ALLOCATOR`, for processes that measure memory."""
    return {key: value for key, value in os.environ.items() if key not in ALLOCATOR}


def turns(functions, rounds, clock):
    """Seconds by `clock`, an array (functions, rounds), of functions called in turn after one call to warm up."""
    for function in functions:
        function()
    seconds = np.zeros((len(functions), rounds))
    for round_number in range(rounds):
        for number, function in enumerate(functions):
            started = clock()
            function()
            seconds[number, round_number] = clock() - started
    return seconds


def take_turns(functions, rounds, clock):
    """The medians of `turns`."""
    return np.median(turns(functions, rounds, clock), axis=1).tolist()


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
