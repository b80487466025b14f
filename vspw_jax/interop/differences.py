"""In what the network of a file that does not fit is another than the recipe's, and the flags that would mend it."""

from collections.abc import Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict

from vspw_jax.console.errors import UserError
from vspw_jax.interop import sizes
from vspw_jax.interop.checkpoint_file import CheckpointFile
from vspw_jax.interop.namings import Naming
from vspw_jax.models import segmenter
from vspw_jax.models.decoders.decoder import Decoder
from vspw_jax.models.encoders.encoder import Encoder
from vspw_jax.models.torch_names import DecoderSizes, EncoderSizes, Names, Shapes

Kind = type[Encoder] | type[Decoder]
Kinds = Mapping[str, type[Encoder]] | Mapping[str, type[Decoder]]


def _flag(part: str, name: str, value: Any) -> str:
    text = f"'{value}'" if isinstance(value, tuple) else str(value)
    return f"--config.model.{part}.{name}={text}"


def _a(name: str) -> str:
    """With the article that its first sound has."""
    return f"{'an' if name.lower().startswith(('a', 'e', 'hr', 'i', 'o')) else 'a'} {name}"


def _size(kind: Kind, fields: Mapping[str, Any]) -> str | None:
    """The published size that has these fields; of those that are not among them any will do. None without fields."""
    fits = lambda size: all(fields.get(name, value) == value for name, value in size.items())
    return next((title for title, size in kind.PUBLISHED.items() if fields and fits(size)), None)


def _told(names: Names[EncoderSizes] | Names[DecoderSizes], theirs: str, file: CheckpointFile) -> dict[str, Any]:
    """The fields that the file's tensors tell; none where some of these are missing."""
    try:
        fields = names.sizes(Shapes(file.path, file.tensors), theirs)[0] if names.sizes is not None else {}
    except UserError:
        return {}
    return {name: fields[name] for name in names.told}


def _another_kind(part: str, found: str, kinds: Kinds, told: Mapping[str, Any], config: ConfigDict) -> str:
    """The sentence on a file whose encoder or decoder is of the kind `found`, of which tensors tell some fields."""
    sizes_of = {found: _size(kinds[found], told), config.name: _size(kinds[config.name], config)}
    there, here = (f"{_a(size)} ({name})" if size else _a(name) for name, size in sizes_of.items())
    return f"Its {part} is {there}, the recipe's is {here}."


def _another_size(part: str, kind: Kind, told: Mapping[str, Any], config: ConfigDict) -> str | None:
    """The sentence on a file whose encoder or decoder is of the recipe's kind; None where what is told is the same."""
    listed = lambda fields, names: ", ".join(f"{name} {fields[name]}" for name in names)
    differ = lambda fields: {name: value for name, value in fields.items() if config[name] != value}
    other, there, here = differ(told), _size(kind, told), _size(kind, config)
    if not other:
        return None
    if there is None or there == here:
        said = f"Its {part}, {_a(config.name)}, has {listed(other, other)}; the recipe has {listed(config, other)}."
    else:
        other = differ({**told, **kind.PUBLISHED[there]})
        said = f"Its {part} is {_a(there)}; the recipe has {_a(here) if here else listed(config, other)}."
    return f"{said} Set {' '.join(_flag(part, *field) for field in other.items())}."


def _of_part(
    part: str, kinds: Kinds, theirs: str, config: ConfigDict, file: CheckpointFile, naming: Naming
) -> str | None:
    """The sentence on the encoder or the decoder; None where there is nothing to say."""
    declared, own = naming.declared(kinds), config.name
    is_own = own in declared and sizes.kind_of({own: declared[own]}, theirs, file)
    found = own if is_own else sizes.kind_of(declared, theirs, file)
    if found is None:
        return None
    told = _told(declared[found], theirs, file)
    return _another_size(part, kinds[own], told, config) if is_own else _another_kind(part, found, kinds, told, config)


def sentences(config: ConfigDict, file: CheckpointFile, naming: Naming) -> Iterator[str]:
    """What is said of them; nothing where the tensors do not tell.

    Args:
      config: config.model.
    """
    kinds: dict[str, Any] = {"encoder": segmenter.ENCODERS, "decoder": segmenter.DECODERS}
    for part, theirs in (("encoder", naming.encoder), ("decoder", naming.decoder)):
        if theirs is None:
            continue
        sentence = _of_part(part, kinds[part], theirs, config[part], file, naming)
        if sentence:
            yield sentence
