"""How often this process had a program compiled by XLA, and how long that took."""

import jax

_seconds, _from_cache = [], []


def _listen(event, seconds, **_):
    if event == "/jax/core/compile/backend_compile_duration":
        _seconds.append(seconds)


def _listen_to_cache(event, **_):
    if event == "/jax/compilation_cache/cache_hits":
        _from_cache.append(event)


jax.monitoring.register_event_duration_secs_listener(_listen)
jax.monitoring.register_event_listener(_listen_to_cache)


def count():
    """Programs compiled until now, those that the compile cache gave included."""
    return len(_seconds)


def describe():
    """A line for the log."""
    return f"{len(_seconds)} programs compiled in {sum(_seconds):.1f} s, {len(_from_cache)} of them from the cache"
