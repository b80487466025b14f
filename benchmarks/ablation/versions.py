"""What code results come from: the commit, and the versions of what computes."""

import importlib.metadata
import pathlib
import platform
import subprocess

ROOT = pathlib.Path(__file__).parents[2]
PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy")


def commit() -> str | None:
    """The commit of the working tree, with "+" where tracked files differ from it; None outside of a repository."""
    try:
        head = _git("rev-parse", "HEAD")
        return head + ("+" if _git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def versions() -> dict[str, str]:
    """Versions by name, Python's too."""
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in PACKAGES}}
