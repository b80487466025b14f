"""From a checkpoint file to a network's parameters: the plan, checked as a whole, and its execution leaf by leaf.

Paths are names joined by slashes, such as "encoder/interactions/blocks/attn/qkv/kernel".
"""

import collections
import dataclasses
import re

import jax.numpy as jnp
import numpy as np

from vspw_jax.console.errors import UserError
from vspw_jax.interop import namings
from vspw_jax.interop.checkpoint_file import CheckpointFile
from vspw_jax.interop.misfits import Rule, rule_for
from vspw_jax.interop.name_maps import Row

TRAINING_ALONE = "projection/"
"""What begins so is run in training alone: files neither have nor need it."""


@dataclasses.dataclass(frozen=True)
class Piece:
    """A row, the tensor that it is, and the rule by which that becomes ours."""

    row: Row
    tensor: object
    rule: Rule


@dataclasses.dataclass(frozen=True)
class Plan:
    """What of a file goes where.

    Attributes:
      file, naming: the file and how it names its tensors.
      pieces: `Piece`s by our path.
      left_out: names of the file that are not read, by reason.
      fresh: our paths that stay as initialised.
    """

    file: CheckpointFile
    naming: namings.Naming
    pieces: dict
    left_out: dict
    fresh: list

    def leaf(self, path, shape, dtype, fresh):
        """Our array at `path`, read and put together; `fresh()` gives its initial value, should a rule ask for it."""
        array = np.empty(shape, dtype)
        for piece in self.pieces[path]:
            view = lambda array, row=piece.row: row.view(array)
            theirs = piece.rule.apply(piece.row.cut(piece.tensor.read()), lambda view=view: view(np.asarray(fresh())))
            if np.issubdtype(dtype, np.integer) and theirs.max() > np.iinfo(dtype).max:
                raise UserError(f"{self.file.path}: {piece.row.theirs} is {theirs}, too large for {dtype}.")
            view(array)[...] = theirs
        return array

    def unsettled(self):
        """Our paths whose values the file alone does not give, though they are needed to predict.

        Counts of batches, which old files lack, are not.
        """
        partial = [path for path, pieces in self.pieces.items() if not all(piece.rule.settles for piece in pieces)]
        needless = lambda path: path.endswith("/count") or path.startswith(TRAINING_ALONE)
        return partial + [path for path in self.fresh if not needless(path)]

    def report(self):
        """What is read, changed, left out and left fresh, a line each."""
        lines = [f"{self.file.path}: names are {self.naming.title}"]
        pieces = [piece for pieces in self.pieces.values() for piece in pieces]
        lines += [f"  {n:4d} {text}" for text, n in collections.Counter(piece.rule.text for piece in pieces).items()]
        others = [piece.tensor.dtype.name for piece in pieces if jnp.issubdtype(piece.tensor.dtype, jnp.floating)]
        others = collections.Counter(name for name in others if name != "float32")
        lines += [f"  {n:4d} of these are {name} there and float32 here" for name, n in others.items()]
        for why, names in self.left_out.items():
            kinds = dict.fromkeys(re.sub(r"\d+", "*", name) for name in names)
            lines.append(f"  {len(names):4d} not read ({', '.join(kinds)}): {why}")
        modules = ", ".join(dict.fromkeys("/".join(path.split("/")[:2]) for path in self.fresh))
        if self.fresh:
            lines.append(f"  {len(self.fresh):4d} variables stay as initialised, as the file has none: {modules}")
        return "\n".join(lines)


def _same_kind(tensor, dtype):
    return jnp.issubdtype(tensor.dtype, jnp.floating) == jnp.issubdtype(dtype, jnp.floating)


def plan(config, shapes, file):
    """The `Plan` for a network.

    Args:
      config: config.model.
      shapes: our leaves by path, arrays or `jax.ShapeDtypeStruct`.
      file: `CheckpointFile`.

    Raises:
      UserError: tensors missing, unknown or of another shape; all are listed.
    """
    naming = namings.recognise(file.tensors, file.path)
    rows = naming.rows(config, file.tensors)
    pieces, missing, misshapen = collections.defaultdict(list), {}, {}
    for row in rows:
        leaf, tensor = shapes[row.ours], file.tensors.get(row.theirs)
        wanted = row.their_shape(leaf.shape)
        if tensor is None:
            if not row.theirs.endswith("num_batches_tracked"):  # Old files have none; torch then starts from 0 too.
                missing[row.theirs] = f"{row.theirs} {wanted}, for {row.ours}"
            continue
        rule = rule_for(row, tensor, wanted, file.tensors, config)
        if rule is None or not _same_kind(tensor, leaf.dtype):
            found = f"{row.theirs} {tensor.shape} {tensor.dtype}"
            misshapen[row.theirs] = f"{found}; wanted {wanted}, for {row.ours}"
        else:
            pieces[row.ours].append(Piece(row, tensor, rule))
    left_out = _left_out(naming, file.tensors.keys() - {row.theirs for row in rows}, file)
    extra = left_out.pop(None, [])
    named = {row.ours for row in rows}
    nameless = [path for path in shapes if path not in named and not path.startswith(TRAINING_ALONE)]
    problems = {
        "missing from the file": list(missing.values()),
        "in the file, but not in the network": [f"{name} {file.tensors[name].shape}" for name in extra],
        "of another shape or type": list(misshapen.values()),
        "in the network, but without a name in such files": nameless if naming.whole else [],
    }
    _refuse(file, naming, problems)
    return Plan(file, naming, dict(pieces), left_out, [path for path in shapes if path not in pieces])


def _left_out(naming, unread, file):
    """Names that no row reads, in the file's order, by the reason why they need not be; None where there is none."""
    by_reason = collections.defaultdict(list)
    for name in file.tensors:
        if name in unread:
            reasons = (why for pattern, why in naming.left_out.items() if re.search(pattern, name))
            by_reason[next(reasons, None)].append(name)
    return dict(by_reason)


def _refuse(file, naming, problems):
    found = {kind: lines for kind, lines in problems.items() if lines}
    if found:
        parts = "\n".join(f"{kind} ({len(lines)}):\n  " + "\n  ".join(lines) for kind, lines in found.items())
        raise UserError(
            f"{file.path} does not fit the network of this config. Its names are {naming.title}.\n{parts}\n"
            "Set the config's sizes to the checkpoint's (--mode=inspect --config.init_from=PATH shows them), or choose "
            "the recipe that it was trained with."
        )
