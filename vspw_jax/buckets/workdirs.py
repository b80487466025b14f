"""Workdirs of runs in buckets, and checkpoints to start from."""

from vspw_jax.buckets import addresses, fetched, mirrors
from vspw_jax.buckets.remote_folder import RemoteFolder

CHECKPOINTS = "checkpoints"
INDEX = ".index.json"


def _is_small(name: str) -> bool:
    """Whether a file of a workdir is copied here at once: its notes and figures, and logs, which grow by lines."""
    return "/" not in name or name.startswith("logs/") or (name.startswith("damaged/") and name.endswith(".jsonl"))


def opened(address: str, also: str = "") -> mirrors.Mirror:
    """A mirror of a run's workdir; checkpoints and predictions come when they are asked for.

    Args:
      also: a folder of it that is copied at once.
    """
    return mirrors.opened(address, lambda name: _is_small(name) or bool(also) and name.startswith(f"{also}/"))


def _split(address: str, names: list[str]) -> tuple[str, str] | None:
    """(workdir, what is named in it) of a run's folder, of its folder of checkpoints or of one of these; else None."""
    last, above = addresses.last_name(address), addresses.folder_of(address)
    if any(name.startswith(f"{CHECKPOINTS}/") for name in names):
        return address, ""
    if last == CHECKPOINTS:
        return above, CHECKPOINTS
    if last.isdecimal() and addresses.last_name(above) == CHECKPOINTS:
        return addresses.folder_of(above), f"{CHECKPOINTS}/{last}"
    return None


def to_start_from(place: str) -> str:
    """A path of this disk for what `config.init_from` names.

    Of a file in a bucket it is a copy, with the JSON files beside it, which may say more of it, and with all that an
    index names; of a folder a copy; of a run's workdir a mirror.
    """
    if not addresses.is_address(place):
        return place
    address = addresses.plain(place)
    found = RemoteFolder(address).objects()
    if "" in found:
        above, own = addresses.folder_of(address), addresses.last_name(address)
        beside = {name: each for name, each in RemoteFolder(above).objects().items() if "/" not in name}
        needed = {n: x for n, x in beside.items() if n == own or n.endswith(".json") or own.endswith(INDEX)}
        return str(fetched.Copy(above, needed).bring() / own)
    run = _split(address, list(found))
    if run is None:
        return str(fetched.Copy(address, {name: each for name, each in found.items() if "/" not in name}).bring())
    workdir, inside = run
    mirror = opened(workdir)
    if "/" in inside:
        mirror.bring(mirror.under(inside))
    (mirror.folder / (inside or CHECKPOINTS)).mkdir(parents=True, exist_ok=True)
    return str(mirror.folder / inside)
