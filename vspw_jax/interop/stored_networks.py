"""The networks that a checkpoint holds, and which of them is taken.

Trainers keep tensors under a key such as "state_dict", perhaps inside another dict, and an average of the weights or a
second network beside them. A network's label is its keys and the prefix of its names, joined by dots: "state_dict",
"model.state_dict", "state_dict.student".
"""

import dataclasses
import pathlib
import re
from collections.abc import Iterator
from typing import Any

from vspw_jax.console.errors import UserError, listed
from vspw_jax.interop import wrapped_names
from vspw_jax.interop.pickle_machine import Inert, kind
from vspw_jax.interop.stored_tensors import NewTensor, StoredTensor

Tensor = StoredTensor | NewTensor

TRAINED = (
    "state_dict", "model", "module", "model_state_dict", "model_state", "net", "network", "weights", "params",
    "segmentor", "student", "online",
)  # fmt: skip
"""Keys and prefixes of what was trained. The first that is there counts."""

AVERAGES = {"ema", "teacher", "average", "averaged", "avg", "swa", "momentum", "shadow", "target"}
"""Words in the keys and prefixes of averages of the weights."""

DEPTH = 5
"""So deep inside each other are dicts looked into."""


@dataclasses.dataclass(frozen=True)
class Network:
    """A network's tensors.

    Attributes:
      label: its keys and prefix.
      tensors: by name, without what wrappers and trainers put before it.
      known: whether the names are of a known kind.
      beside: names of tensors in the same dict that belong to no network.
      strays: what else is in that dict, with its kind.
    """

    label: str
    tensors: dict[str, Tensor]
    known: bool
    beside: tuple[str, ...] = ()
    strays: tuple[str, ...] = ()

    @property
    def is_average(self) -> bool:
        """Whether the label has a word for an average."""
        words = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", self.label)  # Of "model_ema" and of "modelEMA".
        return not AVERAGES.isdisjoint(word.lower() for word in words)

    def described(self) -> str:
        """Its label, in words."""
        return f"{self.label or 'the top'!r}{' (an average, by its name)' if self.is_average else ''}"

    def rank(self) -> tuple[Any, ...]:
        """Lower for a network that is rather meant."""
        places = [TRAINED.index(part) if part in TRAINED else len(TRAINED) for part in self.label.split(".")]
        top = [-1 if self.known else len(TRAINED)]  # Odd tensors at the top may be the state of a random generator.
        return not self.known, self.is_average, places if self.label else top


def _dict(value: Any) -> dict[Any, Any]:
    return value if isinstance(value, dict) else {}


def entries(value: Any) -> dict[Any, Any]:
    """What a value has by name: a dict, an object of a subclass of dict, or a pickled module."""
    if not isinstance(value, Inert):
        return _dict(value)
    state = _dict(value.state)
    return _module_entries(state) if "_parameters" in state else value.items or state


def _is_leaf(value: Any) -> bool:
    """Whether a value has nothing by name. Unlike `entries` it takes no time, however large the value is."""
    if isinstance(value, Inert):
        return not value.items and not isinstance(value.state, dict)
    return not isinstance(value, dict)


def _described(name: Any, value: Any) -> str:
    return f"{name!s:.100} ({kind(value):.100})"


def _module_entries(state: dict[Any, Any]) -> dict[Any, Any]:
    """The parameters and buffers of a pickled torch module and of its inner modules, by their joined names.

    Args:
      state: its attributes.
    """
    found: dict[Any, Any] = {}
    waiting, seen = [("", state)], set()
    while waiting:
        prefix, attributes = waiting.pop()
        if id(attributes) in seen:
            continue
        seen.add(id(attributes))
        unsaved = attributes.get("_non_persistent_buffers_set")
        for place in ("_parameters", "_buffers"):
            for name, tensor in _dict(attributes.get(place)).items():
                if tensor is not None and not (isinstance(unsaved, set) and name in unsaved):
                    found[f"{prefix}{name}"] = tensor
        for name, module in _dict(attributes.get("_modules")).items():
            if isinstance(module, Inert) and isinstance(module.state, dict):
                waiting.append((f"{prefix}{name}.", module.state))
    return found


def _dicts(content: Any) -> Iterator[tuple[tuple[str, ...], dict[Any, Any]]]:
    """(keys, what is there by name) of all that a checkpoint holds, each once, from the outside to the inside."""
    level: list[tuple[tuple[str, ...], Any]] = [((), content)]
    seen: set[int] = set()
    for _ in range(DEPTH):
        below = []
        for keys, value in level:
            if id(value) in seen:
                continue
            seen.add(id(value))
            found = entries(value)
            yield keys, found
            below += [((*keys, name), inner) for name, inner in found.items() if isinstance(name, str)]
        level = below


def _in_dict(keys: tuple[str, ...], found: dict[Any, Any]) -> list[Network]:
    """The networks among the values of one dict."""
    tensors = {name: value for name, value in found.items() if isinstance(name, str) and isinstance(value, Tensor)}
    if not tensors:
        return []
    tensors = wrapped_names.unwrapped(tensors)
    by_prefix = wrapped_names.networks(tensors)
    strays = tuple(
        _described(name, value)
        for name, value in found.items()
        if value is not None and not isinstance(value, Tensor) and _is_leaf(value)
    )
    if not by_prefix:
        return [Network(".".join(keys), tensors, known=False, strays=strays)]
    beside = tuple(name for name in tensors if not name.startswith(tuple(by_prefix)))
    label = lambda prefix: ".".join((*keys, *prefix.split(".")[:-1]))
    networks = [Network(label(prefix), inner, True, beside, strays) for prefix, inner in by_prefix.items()]
    averages = [network for network in networks if network.is_average]
    trained = [network for network in networks if not network.is_average]
    joined = {name: tensor for network in trained for name, tensor in network.tensors.items()}
    if len(trained) > 1 and len(joined) == sum(len(network.tensors) for network in trained):
        # One network, whose names have a prefix here and none there.
        trained = [Network(label(""), joined, True, beside, strays)]
    return trained + averages


def find(content: Any) -> list[Network]:
    """All networks of a checkpoint's content, those that are rather meant first."""
    networks = [network for keys, found in _dicts(content) for network in _in_dict(keys, found)]
    return sorted(networks, key=Network.rank)


def _nothing(path: pathlib.Path, content: Any) -> UserError:
    values = [
        _described(".".join((*keys, str(name))), value)
        for keys, found in _dicts(content)
        for name, value in found.items()
        if _is_leaf(value)
    ]
    return UserError(
        f"{path} holds no tensors by name: found {listed(values) or kind(content)}. Expected what torch.save writes of "
        "model.state_dict(), or of a dict that has it inside. Nothing of the file was run."
    )


def take(path: pathlib.Path, content: Any, key: str) -> tuple[Network, list[Network]]:
    """The network that is taken from a checkpoint's content, and the others of its kind.

    Args:
      key: a label, or the start of one; empty for the one that is rather meant.

    Raises:
      UserError: no tensors, no network of that label, or several of which none is rather meant.
    """
    networks = find(content)
    if not networks:
        raise _nothing(path, content)
    meant = [network for network in networks if not key or f"{network.label}.".startswith(f"{key}.")]
    if not meant:
        raise UserError(
            f"--config.init_from_key={key}: {path} has no weights there. It has weights under "
            f"{listed(repr(network.label) for network in networks if network.label) or 'no key, but at the top'}."
        )
    first, rivals = meant[0], [network for network in meant[1:] if network.rank() == meant[0].rank()]
    if rivals and first.known:
        choices = [network.label for network in (first, *rivals)]
        raise UserError(
            f"{path} holds {len(choices)} networks, and nothing tells which is meant: {listed(choices)}. Choose with "
            f"--config.init_from_key={choices[0]}, or another of these."
        )
    return first, [network for network in networks if network is not first and network.known == first.known]
