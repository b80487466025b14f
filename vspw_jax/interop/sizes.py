"""Reads a network's config off the shapes of a checkpoint that holds a whole network.

The marks of the encoders and decoders tell which network it is, and each of these reads its own sizes; see
`models/torch_names.py`.
"""

from collections.abc import Mapping

from ml_collections import ConfigDict

from vspw_jax.console.errors import UserError
from vspw_jax.interop import namings
from vspw_jax.interop.checkpoint_file import CheckpointFile
from vspw_jax.models import segmenter
from vspw_jax.models.torch_names import Names, Shapes


def _part_alone(file: CheckpointFile, naming: namings.Naming) -> UserError:
    return UserError(
        f"{file.path} holds a part of a network (names: {naming.title}), so it alone says too little. Start a network "
        "from it with --config.init_from=PATH."
    )


def kind_of(candidates: Mapping[str, Names], theirs: str, file: CheckpointFile) -> str | None:
    """Which of some encoders or decoders a file has, by its marks; None if none of them."""
    for name, names in candidates.items():
        if any(tensor.startswith(names.starts(theirs)) for tensor in file.tensors):
            return name
    return None


def _choose(candidates: Mapping[str, Names], theirs: str, file: CheckpointFile) -> str:
    """Which encoder or decoder a file has."""
    name = kind_of(candidates, theirs, file)
    if name is not None:
        return name
    marks = " or ".join(start for names in candidates.values() for start in names.starts(theirs))
    raise UserError(f"{file.path}: none of its names starts with {marks}, so its network is not known.")


def _read(
    candidates: Mapping[str, Names], theirs: str, file: CheckpointFile, naming: namings.Naming
) -> tuple[ConfigDict, tuple[int, int] | int, list[str]]:
    """(config section, image size or number of classes, what was assumed) of the encoder or the decoder in a file."""
    name = _choose(candidates, theirs, file)
    names = candidates[name]
    if not names.whole:
        raise _part_alone(file, naming)
    if names.sizes is None:
        raise UserError(
            f"{file.path}: its shapes do not tell all sizes of its {name}. Load it with --config.init_from=PATH into "
            "a recipe that has them."
        )
    fields, outside, assumed = names.sizes(Shapes(file.path, file.tensors, file.stated.fields), theirs)
    return ConfigDict({"name": name, **fields}), outside, assumed


def read(file: CheckpointFile) -> tuple[ConfigDict, list[str]]:
    """(config.model, list of what was assumed) of a file that holds a whole network.

    Raises:
      UserError: a network that is not known, a part of one, or sizes that cannot be told.
    """
    naming = namings.recognise(file.tensors, file.path)
    if naming.decoder is None:
        raise _part_alone(file, naming)
    encoder, image_size, assumed = _read(naming.declared(segmenter.ENCODERS), naming.encoder, file, naming)
    decoder, num_classes, more = _read(naming.declared(segmenter.DECODERS), naming.decoder, file, naming)
    config = ConfigDict(dict(image_size=image_size, num_classes=num_classes, dtype="float32", remat="none"))
    config.encoder, config.decoder = encoder, decoder
    return config, assumed + more
