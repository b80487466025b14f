"""The kinds of files that can be read and written: how to tell them apart, and where in them a network's parts stand.

How a part is named in a file, its class declares: `Encoder.TORCH_NAMES` and `Decoder.TORCH_NAMES`. A new kind of file
is one entry in `NAMINGS`, whose name these classes then use.
"""

import dataclasses
import pathlib
import re
from collections.abc import Callable, Collection, Iterable, Mapping

from ml_collections import ConfigDict

from vspw_jax.console.errors import UserError
from vspw_jax.interop import other_networks
from vspw_jax.models import segmenter
from vspw_jax.models.decoders.decoder import Decoder
from vspw_jax.models.encoders import hrnet_rows
from vspw_jax.models.encoders.encoder import Encoder
from vspw_jax.models.torch_names import Names
from vspw_jax.models.torch_rows import Row

COUNTERS = {r"^(n_averaged|steps|num_updates|decay)$": "a counter of an average of weights"}
"""What averages have beside the weights: torch's AveragedModel, mmengine's, Lightning's."""

TRAINING_ALONE = ("projection/", "bank/")
"""A path of ours that begins so is of a part that only training uses: files neither have nor need it."""

OF_TRAINING = {rf"^({'|'.join(TRAINING_ALONE)})": "only training uses these, and each run has its own"}
"""What our own workdirs have of it."""

CLASS_WEIGHTS = {r"^criterion\.empty_weight$": "class weights of the loss; here config.loss.segmentation has them"}


@dataclasses.dataclass(frozen=True)
class Part:
    """An encoder or a decoder in a kind of file: its path here, how its names there start, and its names."""

    ours: str
    theirs: str
    names: Names


@dataclasses.dataclass(frozen=True)
class Naming:
    """A kind of file.

    Attributes:
      name: its key in `NAMINGS`.
      title: for people.
      encoder, decoder: how the names of these start there; a decoder of None is not in such files. Parts may name
        tensors beside that place too.
      marks: pattern of a name that such files have, and that files of the kinds further down in `NAMINGS` lack. Without
        one, the marks of the encoders tell.
      wrapper: the key under which the tensors stand in a .pth that we write.
      left_out: patterns of names that are not read whatever the network, each with the reason.
      check: raises UserError for a network of `config.model` whose parts do not go together there.
    """

    name: str
    title: str
    encoder: str = ""
    decoder: str | None = None
    marks: str = ""
    wrapper: str | None = None
    left_out: Mapping[str, str] = dataclasses.field(default_factory=dict)
    check: Callable[[ConfigDict], None] = lambda config: None

    def fits(self, names: Iterable[str]) -> bool:
        """Whether a file with these names is of this kind."""
        if self.marks:
            return any(re.search(self.marks, name) for name in names)
        encoders = self.declared(segmenter.ENCODERS).values()
        starts = tuple(start for encoder in encoders for start in encoder.starts(self.encoder))
        return any(name.startswith(starts) for name in names)

    def declared(self, kinds: Mapping[str, type[Encoder]] | Mapping[str, type[Decoder]]) -> dict[str, Names]:
        """Those of some encoders or decoders that have names in such files, by the encoder's or the decoder's name."""
        return {name: kind.TORCH_NAMES[self.name] for name, kind in kinds.items() if self.name in kind.TORCH_NAMES}

    def parts(self, config: ConfigDict) -> list[Part]:
        """What such files have of the network of `config.model`.

        Raises:
          UserError: the encoder or the decoder has no names in such files.
        """
        parts = [self._part("encoder", config.encoder.name, segmenter.encoder_of(config), self.encoder)]
        if self.decoder is not None:
            parts.append(self._part("decoder", config.decoder.name, segmenter.decoder_of(config), self.decoder))
        return parts

    def _part(self, ours: str, name: str, kind: type[Encoder] | type[Decoder], theirs: str) -> Part:
        if self.name not in kind.TORCH_NAMES:
            raise UserError(
                f"This network's {ours}, {name}, has no names in files of the kind {self.name}: {self.title}. It has "
                f"names in {', '.join(kind.TORCH_NAMES) or 'no kind of file'}."
            )
        return Part(ours, theirs, kind.TORCH_NAMES[self.name])

    def rows(self, config: ConfigDict, names: Collection[str]) -> list[Row]:
        """The rows of the network of `config.model`, given the names in a file, or none for a file that we write."""
        rows: list[Row] = []
        for part in self.parts(config):
            rows += part.names.rows(part.ours, part.theirs, config[part.ours], names)
        self.check(config)
        return rows

    def whole(self, config: ConfigDict) -> bool:
        """Whether such files hold all of the network of `config.model`; if not, what they lack stays as initialised."""
        return self.decoder is not None and all(part.names.whole for part in self.parts(config))

    def why_left_out(self, config: ConfigDict, name: str) -> str | None:
        """Why a name of such a file is not read for the network of `config.model`; None for one that should be."""
        reasons = [
            ("", COUNTERS | OF_TRAINING | dict(self.left_out)),
            *((part.theirs, part.names.left_out) for part in self.parts(config)),
        ]
        for start, patterns in reasons:
            for pattern, why in patterns.items():
                if name.startswith(start) and re.search(pattern, name.removeprefix(start)):
                    return why
        return None


NAMINGS = {
    naming.name: naming
    for naming in (
        Naming(
            "hugging_face_backbone_upernet",
            title="Hugging Face's (Swin with UperNet)",
            encoder="backbone.",
            decoder="decode_head.",
            marks=r"^backbone\.encoder\.layers\.",
        ),
        Naming(
            "hugging_face_segformer",
            title="Hugging Face's (SegFormer)",
            encoder="segformer.",
            decoder="decode_head.",
            marks=r"^decode_head\.linear_fuse\.weight$",
        ),
        Naming(
            "nvlabs_segformer",
            title="NVIDIA's (SegFormer)",
            encoder="backbone.",
            decoder="decode_head.",
            marks=r"^decode_head\.linear_pred\.",
            wrapper="state_dict",
        ),
        Naming(
            "hugging_face_upernet",
            title="Hugging Face's (BEiT with UperNet)",
            encoder="beit.",
            decoder="decode_head.",
            marks=r"^decode_head\.classifier\.",
        ),
        Naming(
            "hrnet",
            title="HRNet's (HRNet, OCRNet)",
            decoder="",
            marks=r"^(last_layer|cls_head)\.",
            check=hrnet_rows.check_corners,
        ),
        Naming(
            "mmseg_1",
            title="mmsegmentation's, version 1 (BEiT with UperNet, Mask2Former)",
            encoder="backbone.",
            decoder="decode_head.",
            # What version 1 or its model zoo names otherwise; all else has the names of "mmseg".
            marks=r"^(neck\.upsample_4x\.|decode_head\.transformer_decoder\.layers\.0\.cross_attn\.)",
            wrapper="state_dict",
        ),
        Naming(
            "mmseg",
            title="mmsegmentation's",
            encoder="backbone.",
            decoder="decode_head.",
            marks=r"^decode_head\.",  # A backbone alone is a file of the encoder's own kind, under a prefix.
            wrapper="state_dict",
        ),
        Naming(
            "ssseg",
            title="sssegmentation's (MCIBI on ResNet)",
            encoder="backbone_net.",
            decoder="",
            marks=r"^backbone_net\.",
            wrapper="model",
        ),
        Naming(
            "torchvision",
            title="torchvision's (DeepLabV3, FCN)",
            encoder="backbone.",
            decoder="classifier.",
            marks=r"^classifier\.4\.",
        ),
        Naming(
            "detectron2",
            title="detectron2's (Mask2Former)",
            encoder="backbone.",
            decoder="sem_seg_head.",
            marks=r"^sem_seg_head\.predictor\.",
            wrapper="model",
            left_out=CLASS_WEIGHTS | {r"^pixel_(mean|std)$": "what images are normalised by"},
        ),
        Naming(
            "hugging_face_mask2former",
            title="Hugging Face's (Mask2Former)",
            encoder="model.pixel_level_module.encoder.",
            decoder="",
            marks=r"^model\.(pixel_level_module|transformer_module)\.",
            left_out=CLASS_WEIGHTS,
        ),
        Naming("timm", title="timm's (ResNet, HRNet, Swin, FocalNet, EVA-01, EVA-02)"),
        Naming("hrnet_alone", title="HRNet's, timm's and mmsegmentation's (HRNet without a head)"),
        Naming("torchvision_resnet", title="torchvision's, timm's, mmsegmentation's and detectron2's (ResNet)"),
        Naming("hugging_face_resnet", title="Hugging Face's (ResNet)"),
        Naming("hugging_face_focalnet", title="Hugging Face's (FocalNet)"),
        Naming("microsoft_focalnet", title="Microsoft's (FocalNet)", wrapper="model"),
        Naming("hugging_face_swin", title="Hugging Face's (Swin)"),
        Naming("microsoft_swin", title="Microsoft's and mmsegmentation's (Swin)", wrapper="model"),
        Naming("hugging_face_mit", title="Hugging Face's (MiT)"),
        Naming("nvlabs_mit", title="NVIDIA's and mmsegmentation's (MiT)"),
        Naming("opengvlab_internimage", title="OpenGVLab's (InternImage)", wrapper="model"),
        Naming("hugging_face_internimage", title="Hugging Face's (InternImage)", encoder="model."),
        Naming("baai_eva02", title="BAAI's (EVA-02)", wrapper="model"),
        Naming(
            "baai_eva01",
            title="BAAI's and timm's (EVA-01; no other ViT)",
            wrapper="model",
        ),
        Naming("unilm", title="unilm's (BEiT, BEiTv2)", wrapper="model"),
        Naming("hugging_face_beit", title="Hugging Face's (BEiT)"),
    )
}
"""By the name that `convert.save_torch` takes."""


def recognise(names: Collection[str], path: pathlib.Path | str) -> Naming:
    """What kind of file has these names.

    Raises:
      UserError: none that is known, or one of a network that is known not to be ours.
    """
    other = other_networks.title(names)
    if other is not None:
        raise UserError(
            f"{path} holds {other}, which this program does not have. Expected a network of the tables in "
            "docs/weights.md."
        )
    for naming in NAMINGS.values():
        if naming.fits(names):
            return naming
    known = ", ".join(naming.title for naming in NAMINGS.values())
    some = ", ".join(list(names)[:5]) or "no tensors"
    raise UserError(f"{path} names its tensors in no way that is known: found {some}; known are {known}.")
