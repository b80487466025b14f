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
from vspw_jax.models.torch_names import Shapes


def _flag(part: str, name: str, value: Any) -> str:
    text = f"'{value}'" if isinstance(value, tuple) else str(value)
    return f"--config.model.{part}.{name}={text}"


def _of_part(
    part: str,
    kinds: Mapping[str, type[Encoder]] | Mapping[str, type[Decoder]],
    theirs: str,
    config: ConfigDict,
    file: CheckpointFile,
    naming: Naming,
) -> str | None:
    """The sentence on the encoder or the decoder; None where there is nothing to say."""
    declared, own = naming.declared(kinds), config[part].name
    if own not in declared or sizes.kind_of({own: declared[own]}, theirs, file) is None:
        found = sizes.kind_of(declared, theirs, file)
        return f"Its {part} is a {found}, the recipe's is a {own}." if found else None
    names = declared[own]
    if names.sizes is None:
        return None
    fields = names.sizes(Shapes(file.path, file.tensors), theirs)[0]
    other = {name: fields[name] for name in names.told if config[part][name] != fields[name]}
    if not other:
        return None
    there, here = (", ".join(f"{name} {table[name]}" for name in other) for table in (fields, config[part]))
    flags = " ".join(_flag(part, name, value) for name, value in other.items())
    return f"Its {part}, a {own}, has {there}; the recipe has {here}. Set {flags}."


def sentences(config: ConfigDict, file: CheckpointFile, naming: Naming) -> Iterator[str]:
    """What is said of them; nothing where the tensors do not tell.

    Args:
      config: config.model.
    """
    kinds: dict[str, Any] = {"encoder": segmenter.ENCODERS, "decoder": segmenter.DECODERS}
    for part, theirs in (("encoder", naming.encoder), ("decoder", naming.decoder)):
        if theirs is None:
            continue
        try:
            sentence = _of_part(part, kinds[part], theirs, config, file, naming)
        except UserError:  # Tensors of which some are missing tell no sizes.
            continue
        if sentence:
            yield sentence
