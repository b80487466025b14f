"""Names as a network has them, out of the prefixes that trainers and wrappers put before them.

A wrapper adds a part to every name inside it, wherever it stands: "backbone._orig_mod.cls_token". A trainer holds one
network or several as attributes: "model.backbone.cls_token", "teacher.backbone.cls_token". Any part may be such an
attribute, so the kinds of files that are known (`namings.py`) tell where a network's own names begin.
"""

import collections
from collections.abc import Collection, Mapping
from typing import TypeVar

from vspw_jax.interop import namings

T = TypeVar("T")

WRAPPERS = {"module", "_orig_mod", "_forward_module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
"""Parts that DataParallel and DistributedDataParallel, torch.compile, Lightning Fabric, FSDP and activation
checkpointing add."""

DEPTH = 3
"""So many parts may stand before a network's own names."""

UNKNOWN = 10**6
"""The kind of names that no `namings.NAMINGS` fits."""


def unwrapped(tensors: Mapping[str, T]) -> dict[str, T]:
    """By the name without the parts of wrappers; as they are where two names would become one."""
    bare = {".".join(part for part in name.split(".") if part not in WRAPPERS) or name: name for name in tensors}
    return {short: tensors[name] for short, name in bare.items()} if len(bare) == len(tensors) else dict(tensors)


def _kind(names: Collection[str]) -> int:
    """The place in `NAMINGS` of the first that fits: those further up are of larger parts of a network."""
    fits = (place for place, naming in enumerate(namings.NAMINGS.values()) if naming.fits(names))
    return next(fits, UNKNOWN)


def _groups(names: Collection[str]) -> dict[str, list[str]]:
    """What follows the first part of the names, by that part."""
    groups: dict[str, list[str]] = collections.defaultdict(list)
    for name in names:
        first, dot, rest = name.partition(".")
        if dot:
            groups[first].append(rest)
    return groups


def _best_kind(names: Collection[str], depth: int) -> int:
    """The best kind of the names, or of what follows their first parts."""
    inner = (_best_kind(rest, depth - 1) for rest in _groups(names).values()) if depth else ()
    return min([_kind(names), *inner])


def _prefixes(names: Collection[str], best: int, depth: int) -> list[str]:
    """The prefixes, "" or with a dot at their end, after which names of the kind `best` stand."""
    inner = {first: rest for first, rest in _groups(names).items() if depth and _best_kind(rest, depth - 1) == best}
    here = [""] if _kind(names) == best else []
    if here and _kind([name for name in names if name.split(".")[0] not in inner]) != best:
        return here  # What stands further in is a part of this network, not one beside it.
    return here + [f"{first}.{prefix}" for first, rest in inner.items() for prefix in _prefixes(rest, best, depth - 1)]


def networks(tensors: Mapping[str, T]) -> dict[str, dict[str, T]]:
    """The networks of a known kind among tensors: each by its prefix, its tensors by their own names."""
    best = _best_kind(tensors.keys(), DEPTH)
    if best == UNKNOWN:
        return {}
    prefixes = sorted(_prefixes(tensors.keys(), best, DEPTH), key=len, reverse=True)
    found: dict[str, dict[str, T]] = {prefix: {} for prefix in reversed(prefixes)}
    for name, tensor in tensors.items():
        prefix = next((prefix for prefix in prefixes if name.startswith(prefix)), None)
        if prefix is not None:
            found[prefix][name.removeprefix(prefix)] = tensor
    return found
