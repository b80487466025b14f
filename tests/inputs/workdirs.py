"""Workdirs that cannot be written."""

import subprocess


def make_read_only(disk):
    """Mounts a disk anew so that nothing can be written."""
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
