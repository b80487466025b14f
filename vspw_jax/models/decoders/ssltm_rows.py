"""Names of SSLTM's tensors in PyTorch files, and its sizes off their shapes; see `torch_rows.py`.

No public code has this decoder. OCRNet's parts have mmsegmentation's names for OCRNet; the transformer's have those of
its like in SwinTransformer/Video-Swin-Transformer mmaction/models/backbones/swin_transformer.py, and in its Mix-FFN
those of NVlabs/SegFormer mmseg/models/backbones/mix_transformer.py. Without transformer and clusters the file is an
OCRNet's, and is read as one.
"""

import dataclasses
import functools
import itertools
from collections.abc import Collection, Iterator, Mapping

import numpy as np
from jaxtyping import Int
from ml_collections import ConfigDict

from vspw_jax.models.decoders import ocrnet_rows
from vspw_jax.models.torch_names import DecoderNames, DecoderSizes, Names, Shapes
from vspw_jax.models.torch_rows import AS_IT_IS, CLASSES, Buffer, Fit, Row, Rule, Stored, conv, linear, norm

TEMPORAL, CLUSTERS = "1.temporal.blocks.", "1.clusters."
TABLE, INDEX = "attn.relative_position_bias_table", "attn.relative_position_index"
LEFT_OUT = {r"relative_position_index$": "position indices follow from the window; export makes them anew"}

Size3 = tuple[int, int, int]


def table_rows(window: Size3) -> int:
    """Rows of the table of a window: one for each offset."""
    return int(np.prod([2 * cells - 1 for cells in window]))


@functools.cache
def position_index(window: Size3) -> Int[np.ndarray, "S S"]:
    """The table's row of each pair of a window's cells, query and key."""
    place_S3 = np.stack(np.meshgrid(*map(np.arange, window), indexing="ij"), axis=-1).reshape(-1, 3)
    offset_SS3 = place_S3[:, None] - place_S3[None] + np.array(window) - 1
    return np.ravel_multi_index(np.moveaxis(offset_SS3, -1, 0), [2 * cells - 1 for cells in window])


def window_of(cells: int, rows: int) -> Size3 | None:
    """The window of so many cells whose table has so many rows, square in height and width if there is such a one."""
    sides = [side for side in range(1, cells + 1) if cells % side == 0]
    windows = [(cells // (h * w), h, w) for h, w in itertools.product(sides, sides) if cells % (h * w) == 0]
    fitting = [window for window in windows if table_rows(window) == rows]
    return min(fitting, key=lambda window: abs(window[1] - window[2]), default=None)


@dataclasses.dataclass(frozen=True)
class VideoTables(Fit):
    """A table is read where its window is ours; with it files hold the index of its rows."""

    window: Size3

    def rule(
        self, theirs: str, tensors: Mapping[str, Stored], our_shape: tuple[int, ...], image_size: tuple[int, int]
    ) -> Rule | None:
        return AS_IT_IS if tensors[theirs].shape == our_shape else None

    def buffers(self, theirs: str, image_size: tuple[int, int]) -> Iterator[Buffer]:
        cells = int(np.prod(self.window))
        make = functools.partial(position_index, self.window)
        yield Buffer(theirs.replace(TABLE, INDEX), (cells, cells), np.dtype(np.int64), make)


def mmseg(ours: str, theirs: str, config: ConfigDict, names: Collection[str] = ()) -> Iterator[Row]:
    """Rows in files that we write."""
    yield from ocrnet_rows.mmseg(ours, theirs, config, names)
    for number in range(config.blocks):
        here, there = f"{ours}/temporal/blocks/{number}", f"{theirs}{TEMPORAL}{number}"
        for name in ("norm1", "norm2"):
            yield from norm(f"{here}/{name}", f"{there}.{name}")
        d, h, w = config.window
        yield Row(f"{here}/{TABLE.replace('.', '/')}", f"{there}.{TABLE}", fit=VideoTables((d, h, w)))
        for name in ("attn/qkv", "attn/proj", "mlp/fc1", "mlp/fc2"):
            yield from linear(f"{here}/{name}", f"{there}.{name.replace('/', '.')}")
        yield from conv(f"{here}/mlp/depthwise", f"{there}.mlp.dwconv.dwconv")
    if config.clusters:
        yield Row(f"{ours}/clusters/rows_KGC", f"{theirs}{CLUSTERS}rows", counts=CLASSES)
        if config.cluster_update == "ema":
            yield Row(f"{ours}/clusters/valid_KG", f"{theirs}{CLUSTERS}valid", counts=CLASSES)


def _transformer_sizes(shapes: Shapes, theirs: str, dim: int) -> dict[str, object]:
    blocks = shapes.count(f"{theirs}{TEMPORAL}{{}}.norm1.weight")
    if not blocks:
        return dict(blocks=0, short_term=1, window=(1, 1, 1), heads=1, mlp_ratio=1.0)
    first = f"{theirs}{TEMPORAL}0."
    cells, rows = shapes.size(first + INDEX, 0), shapes.size(first + TABLE, 0)
    window = window_of(cells, rows) or (1, 1, cells)
    ratio = shapes.size(f"{first}mlp.fc1.weight", 0) / dim
    heads = shapes.size(first + TABLE, 1)
    return dict(blocks=blocks, short_term=window[0], window=window, heads=heads, mlp_ratio=ratio)


def mmseg_sizes(shapes: Shapes, theirs: str) -> DecoderSizes:
    """In files that we wrote. What a frame attends to, and which frame is the reference, is not in shapes."""
    fields, num_classes, assumed = ocrnet_rows.mmseg_sizes(shapes, theirs)
    name = f"{theirs}{CLUSTERS}rows"
    has_clusters, moves = name in shapes.tensors, f"{theirs}{CLUSTERS}valid" in shapes.tensors
    fields |= _transformer_sizes(shapes, theirs, fields["dim"])
    fields |= dict(shift=False, context="reference", reference="first", distance=60, momentum=0.01)
    fields |= dict(clusters=shapes.size(name, 1) if has_clusters else 0, cluster_update="ema" if moves else "mse")
    assumed = [
        *assumed,
        f"a transformer over {fields['short_term']} frames, its windows {fields['window']} and not shifted",
        "the context of a reference frame, a video's first",
    ]
    return DecoderSizes(fields, num_classes, assumed)


TOLD = (*ocrnet_rows.TOLD, "blocks", "window", "heads", "mlp_ratio", "clusters", "cluster_update")
NAMES: DecoderNames = {"mmseg": Names((TEMPORAL, CLUSTERS), mmseg, mmseg_sizes, TOLD, left_out=LEFT_OUT)}
