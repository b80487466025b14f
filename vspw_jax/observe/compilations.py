"""How often this process had a program compiled by XLA, and how long that took."""

from typing import Any

import jax

_seconds: list[float] = []
_from_cache: list[str] = []


def _listen(event: str, duration_secs: float, **_: Any) -> None:
    if event == "/jax/core/compile/backend_compile_duration":
        _seconds.append(duration_secs)


def _listen_to_cache(event: str, **_: Any) -> None:
    if event == "/jax/compilation_cache/cache_hits":
        _from_cache.append(event)


jax.monitoring.register_event_duration_secs_listener(_listen)
jax.monitoring.register_event_listener(_listen_to_cache)


def count() -> int:
    """Programs compiled until now, with those that the compile cache gave."""
    return len(_seconds)


def describe() -> str:
    """A line for the log."""
    return f"{len(_seconds)} programs compiled in {sum(_seconds):.1f} s, {len(_from_cache)} of them from the cache"
