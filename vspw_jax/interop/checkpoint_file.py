"""A checkpoint of any format: its tensors by name, not yet read."""

import dataclasses
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from vspw_jax.classes.class_list import ClassList
from vspw_jax.console.errors import UserError, listed
from vspw_jax.data.transforms import Normalisation
from vspw_jax.files.whole_files import whole_file
from vspw_jax.files.writable import check_file
from vspw_jax.interop import (
    array_pickles,
    compressed_files,
    foreign_files,
    safetensors_files,
    split_files,
    stored_classes,
    stored_config,
    stored_networks,
    stored_normalisation,
    torch_files,
    workdirs,
)
from vspw_jax.interop.stored_config import Stated
from vspw_jax.interop.stored_networks import Network, Tensor
from vspw_jax.interop.stored_tensors import NewTensor

EXPECTED = (
    "Expected a file of torch.save (.pth, .bin), of safetensors or of detectron2 (.pkl), with a network's weights."
)


@dataclasses.dataclass(frozen=True)
class CheckpointFile:
    """Tensors of one network by name.

    Attributes:
      wrapper: the keys and prefix that they stood under, joined by dots; None at the top.
      others: the keys at the top beside that.
      notes: sentences on what else there is, and was not taken.
      classes: those that it names; None where it names none.
      normalisation: of images for its network, where that is not ImageNet's.
      stated: what its own config says of the network.
    """

    path: pathlib.Path
    tensors: dict[str, Tensor]
    wrapper: str | None = None
    others: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    classes: ClassList | None = None
    normalisation: Normalisation | None = None
    stated: Stated = Stated()

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.nbytes for tensor in self.tensors.values())


def _content(path: pathlib.Path) -> Any:
    """What a file or workdir holds: dicts, tensors that still lie in it, and other values."""
    if path.is_dir():
        return workdirs.read(path)
    if compressed_files.is_compressed(path):
        inside = compressed_files.unpacked(path)
        try:
            return _content_of_file(inside)
        except UserError as error:
            raise UserError(str(error).replace(str(inside), str(path))) from error
    if split_files.is_index(path):
        return split_files.read(path, _content_of_file)
    split_files.check_whole(path)
    return _content_of_file(path)


def _content_of_file(path: pathlib.Path) -> Any:
    what = foreign_files.describe(path)
    if what:
        raise UserError(f"{path} is no checkpoint: it is {what}. {EXPECTED}")
    if safetensors_files.is_safetensors(path):
        return safetensors_files.read(path)
    if torch_files.is_zip(path):
        return torch_files.read_zip(path)
    return array_pickles.read(path) if array_pickles.is_array_pickle(path) else torch_files.read_legacy(path)


def _notes(taken: Network, others: list[Network], stated: Stated) -> tuple[str, ...]:
    notes = []
    if taken.is_average:
        notes.append(f"these are an average of weights, by the name {taken.label!r}")
    if others:
        notes.append(
            f"other weights are there and not taken: {listed(network.described() for network in others)}; "
            f"--config.init_from_key={others[0].label} takes those"
        )
    if taken.beside:
        notes.append(f"{len(taken.beside)} tensors are outside this network and not read: {listed(taken.beside, 4)}")
    if taken.strays:
        notes.append(f"not read, as they are no tensors: {listed(taken.strays, 4)}")
    if stated.align_corners:
        notes.append("logits are resized to the image with corners aligned, by its own config; here they are without")
    return tuple(notes)


def _file_of(path: pathlib.Path) -> pathlib.Path:
    """The file, the index or the workdir that a path means; of another folder the one that it holds."""
    if not path.is_dir() or workdirs.is_workdir(path):
        return path
    workdirs.check_no_step(path)
    return split_files.in_folder(path)


def _classes(file: pathlib.Path, content: Any) -> ClassList | None:
    if file.is_dir():
        return workdirs.classes(file)
    if split_files.is_index(file):
        return None
    return stored_classes.in_content(content) or stored_classes.in_header(file)


def read(path: pathlib.Path | str, key: str = "") -> CheckpointFile:
    """Opens a checkpoint: .pth, .pth.tar, .pth.gz, .bin, .safetensors, .pkl, an index of several files, a folder with
    one of these, or a workdir of our own. Its first bytes say which it is.

    Args:
      key: of the network that is taken, such as "state_dict_ema", where there are several; empty for the first that
        was trained.

    Raises:
      UserError: it is not there, damaged, something else than a checkpoint, or holds no network of that key.
    """
    path = pathlib.Path(path)
    try:
        file = _file_of(path)
        content = _content(file)
    except OSError as error:
        raise UserError(f"The checkpoint {path} cannot be read: {error.strerror or error}.") from error
    taken, others = stored_networks.take(path, content, key)
    first = taken.label.split(".")[0]
    stated = stored_config.in_content(content)
    beside = tuple(str(name) for name in stored_networks.entries(content) if name not in (first, *taken.tensors))
    return CheckpointFile(
        path,
        taken.tensors,
        taken.label or None,
        beside if taken.label else (),
        _notes(taken, others, stated),
        _classes(file, content) or stored_classes.in_config(path),
        stored_normalisation.in_preprocessor(path),
        stated,
    )


def check_output(path: pathlib.Path | str) -> None:
    """Raises UserError where `write` could not write to a path: an unknown suffix, a folder, a place without room."""
    path = pathlib.Path(path)
    if not re.search(r"\.(pth|pt|pth\.tar|safetensors)$", path.name):
        raise UserError(f"{path}: expected a name that ends in .pth, .pt, .pth.tar or .safetensors.")
    check_file(path, "--output=X.pth")


def holds_names(path: pathlib.Path | str, wrapper: str | None) -> bool:
    """Whether a file that `write` writes has a place for the classes' names: a .pth of tensors alone has none."""
    return pathlib.Path(path).suffix == ".safetensors" or wrapper is not None


def write(
    path: pathlib.Path | str,
    tensors: Mapping[str, NewTensor],
    wrapper: str | None,
    classes: ClassList | None = None,
) -> None:
    """Writes tensors by name in the format of the path's suffix; no half file stays.

    Args:
      wrapper: the key under which they stand in a .pth.
      classes: are named where there is a place for it, see `holds_names`.

    Raises:
      UserError: an unknown suffix, or the file cannot be written.
    """
    path = pathlib.Path(path)
    check_output(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as partial:
            if path.suffix == ".safetensors":
                safetensors_files.write(partial, tensors, stored_classes.for_header(classes) if classes else {})
            else:
                meta = {"meta": stored_classes.for_meta(classes)} if classes else {}
                torch_files.write(partial, tensors, wrapper, meta)
    except OSError as error:
        raise UserError(f"The checkpoint {path} cannot be written: {error.strerror}.") from error
