"""From a checkpoint file to a network's parameters: a plan, checked as a whole, then carried out leaf by leaf.

Paths are names joined by slashes, such as "encoder/interactions/blocks/attn/qkv/kernel".
"""

import collections
import dataclasses
import functools
import re
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from vspw_jax.console.errors import UserError
from vspw_jax.interop import differences, namings, stored_config
from vspw_jax.interop.checkpoint_file import CheckpointFile
from vspw_jax.interop.misfits import rule_for
from vspw_jax.interop.stored_networks import Tensor
from vspw_jax.models import segmenter
from vspw_jax.models.torch_rows import Row, Rule


@dataclasses.dataclass(frozen=True)
class Piece:
    """A row, its tensor, and the rule by which the tensor becomes ours."""

    row: Row
    tensor: Tensor
    rule: Rule


@dataclasses.dataclass(frozen=True)
class Plan:
    """Which tensor of a file goes where.

    Attributes:
      file, naming: the file and how it names its tensors.
      pieces: by our path.
      left_out: names of the file that are not read, by reason.
      fresh: our paths that stay as initialised.
      network: config.model.
    """

    file: CheckpointFile
    naming: namings.Naming
    pieces: dict[str, list[Piece]]
    left_out: dict[str, list[str]]
    fresh: list[str]
    network: ConfigDict

    def leaf(self, path: str, shape: tuple[int, ...], dtype: np.dtype, fresh: Callable[[], np.ndarray]) -> np.ndarray:
        """Our array at `path`, read and put together; `fresh()` gives its initial value to a rule that needs it."""
        array = np.empty(shape, dtype)
        for piece in self.pieces[path]:
            ours_at_first = lambda row=piece.row: row.view(fresh())
            theirs = piece.rule.apply(piece.row.cut(piece.tensor.read()), ours_at_first)
            if np.issubdtype(dtype, np.integer) and theirs.max() > np.iinfo(dtype).max:
                raise UserError(f"{self.file.path}: {piece.row.theirs} is {theirs}, too large for {dtype}.")
            ours = piece.row.view(array)
            ours[...] = theirs.reshape(ours.shape)
        return array

    def unsettled(self) -> list[str]:
        """Our paths that predicting needs and whose values the file alone does not give."""
        partial = [path for path, pieces in self.pieces.items() if not all(piece.rule.settles for piece in pieces)]
        return partial + [path for path in self.fresh if not _needless(self.network, path)]

    def report(self) -> str:
        """Lines on what is read, changed, left out and left fresh."""
        under = f", under {self.file.wrapper!r}" if self.file.wrapper else ""
        lines = [f"{self.file.path}: names are {self.naming.title}{under}", *(f"  {note}" for note in self.file.notes)]
        pieces = [piece for pieces in self.pieces.values() for piece in pieces]
        lines += [f"  {n:4d} {text}" for text, n in collections.Counter(piece.rule.text for piece in pieces).items()]
        kinds = [piece.tensor.dtype.name for piece in pieces if jnp.issubdtype(piece.tensor.dtype, jnp.floating)]
        others = collections.Counter(kind for kind in kinds if kind != "float32")
        lines += [f"  {n:4d} of these are {kind} there and float32 here" for kind, n in others.items()]
        for why, names in self.left_out.items():
            patterns = dict.fromkeys(re.sub(r"\d+", "*", name) for name in names)
            lines.append(f"  {len(names):4d} not read ({', '.join(patterns)}): {why}")
        modules = ", ".join(dict.fromkeys("/".join(path.split("/")[:2]) for path in self.fresh))
        if self.fresh:
            lines.append(f"  {len(self.fresh):4d} variables stay as initialised, as the file has none: {modules}")
        return "\n".join(lines)


def _needless(network: ConfigDict, path: str) -> bool:
    """Whether predicting does not need what is at a path, such as counts of batches, which old files lack."""
    alone = path.endswith("/count") or path.startswith(namings.TRAINING_ALONE)
    return alone or _is_auxiliary(network, path)


def _is_auxiliary(network: ConfigDict, path: str) -> bool:
    head = segmenter.decoder_of(network).AUXILIARY
    return bool(head) and path.startswith(f"decoder/{head}")


def _same_kind(tensor: Tensor, dtype: np.dtype) -> bool:
    return jnp.issubdtype(tensor.dtype, jnp.floating) == jnp.issubdtype(dtype, jnp.floating)


def plan(config: ConfigDict, shapes: Mapping[str, jax.Array | jax.ShapeDtypeStruct], file: CheckpointFile) -> Plan:
    """The plan for a network.

    Args:
      config: config.model.
      shapes: our leaves by path.

    Raises:
      UserError: tensors missing, unknown or of another shape; all are listed. Or the file's own config says that the
        same tensors are another network's.
    """
    naming = namings.recognise(file.tensors, file.path)
    try:
        rows = naming.rows(config, file.tensors)
    except UserError as error:
        raise UserError(f"{file.path} does not fit this network. {error}") from error
    pieces: dict[str, list[Piece]] = collections.defaultdict(list)
    missing, misshapen = {}, {}
    for row in rows:
        leaf, tensor = shapes[row.ours], file.tensors.get(row.theirs)
        wanted = row.their_shape(leaf.shape)
        if tensor is None:
            if not row.theirs.endswith("num_batches_tracked"):  # Old files have none; torch then starts from 0 too.
                missing[row.theirs] = f"{row.theirs} {wanted}, for {row.ours}"
            continue
        rule = rule_for(row, tensor, wanted, file.tensors, config)
        if rule is None or not (rule.derives or _same_kind(tensor, leaf.dtype)):
            found = f"{row.theirs} {tensor.shape} {tensor.dtype}"
            misshapen[row.theirs] = f"{found}; wanted {wanted}, for {row.ours}"
        else:
            pieces[row.ours].append(Piece(row, tensor, rule))
    auxiliary = {row.theirs for row in rows if _is_auxiliary(config, row.ours)}
    if not auxiliary & file.tensors.keys():  # Without any of that head it is none that is damaged.
        missing = {name: line for name, line in missing.items() if name not in auxiliary}
    unread = file.tensors.keys() - {row.theirs for row in rows}
    left_out, extra = _left_out(unread, file, functools.partial(naming.why_left_out, config))
    named = {row.ours for row in rows}
    nameless = [path for path in shapes if path not in named and not _needless(config, path)]
    problems = {
        "missing from the file": list(missing.values()),
        "in the file, but not in the network": [f"{name} {file.tensors[name].shape}" for name in extra],
        "of another shape or type": list(misshapen.values()),
        "in the network, but without a name in such files": nameless if naming.whole(config) else [],
    }
    _refuse(config, file, naming, problems)
    if naming.decoder is not None:
        stored_config.check(config, file.stated, file.path)
    return Plan(file, naming, dict(pieces), left_out, [path for path in shapes if path not in pieces], config)


def _left_out(
    unread: set[str], file: CheckpointFile, why_left_out: Callable[[str], str | None]
) -> tuple[dict[str, list[str]], list[str]]:
    """Names that no row reads, in the file's order: those that need not be read, by the reason, and the others."""
    by_reason: dict[str, list[str]] = collections.defaultdict(list)
    others: list[str] = []
    for name in file.tensors:
        if name in unread:
            why = why_left_out(name)
            (others if why is None else by_reason[why]).append(name)
    return dict(by_reason), others


def _refuse(config: ConfigDict, file: CheckpointFile, naming: namings.Naming, problems: dict[str, list[str]]) -> None:
    found = {kind: lines for kind, lines in problems.items() if lines}
    if found:
        parts = "\n".join(f"{kind} ({len(lines)}):\n  " + "\n  ".join(lines) for kind, lines in found.items())
        notes = "".join(f"In the file {note}.\n" for note in file.notes)
        others = "".join(f"{sentence}\n" for sentence in differences.sentences(config, file, naming))
        raise UserError(
            f"{file.path} does not fit the network of this config. Its names are {naming.title}.\n{others}{parts}\n"
            f"{notes}Set the config's sizes to the checkpoint's (--mode=inspect --config.init_from=PATH shows them), "
            "or choose the recipe that it was trained with."
        )
