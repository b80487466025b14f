"""The studies: which arms are compared, and on what. A new study is an entry of STUDIES."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from benchmarks.ablation import encoder_recipes
from benchmarks.ablation.arms import FOLDER, Arm, Ensemble, Evaluated, Study

DRAWN = {
    "data.records": f"{FOLDER}/data/records",
    "data.generate.records": f"{FOLDER}/data/records",
    "data.generate.source": f"{FOLDER}/data/vspw",
}
"""Fields by which a demo draws its video into the study's folder, once for all arms and seeds."""


SMALL = {
    # The demo's crop, video and steps, smaller: with a network as narrow a run takes two to four minutes on two cores.
    "model.image_size": (64, 64),
    "train.steps": 400,
    # Drawn classes show in texture and colour: with both nearly as they are, 400 steps suffice to learn some.
    "data.augment.resize_ratio": (0.8, 1.25),
    "data.augment.photometric": False,
    "data.augment.base_size": (128, 80),
    "data.generate.height": 80,
    "data.generate.width": 128,
    "data.generate.frames": 17,  # VC16 counts windows as its public code does, which leaves out the last one.
    "data.generate.val": 36,  # What intervals are drawn from: three times as many as in the demo.
    "evaluate.stride": (64, 64),
    "run.picture_every": 100_000,  # Never: drawing them is compiled by itself.
}
"""A study on drawn video that two cores make in an hour."""

LOW = {
    # Two windows cover a frame, in place of four: evaluating takes as long as training else.
    **SMALL,
    "data.augment.base_size": (128, 64),
    "data.generate.height": 64,
    "train.steps": 300,
}
"""The same with lower frames and fewer steps, for studies of many arms."""

NARROW_MASK2FORMER = {
    "model.encoder.dim": 64,
    "model.encoder.adapter_channels": 16,
    "model.decoder.dim": 64,
    "model.decoder.encoder_ffn_dim": 128,
    "model.decoder.ffn_dim": 128,
    "model.decoder.encoder_layers": 1,
    "model.decoder.decoder_layers": 2,
    "model.decoder.num_queries": 20,
    "model.decoder.norm_groups": 16,
    "loss.segmentation.num_points": 256,
    "optimizer.learning_rate": 2e-3,
}
NARROW_UPERNET = {"model.encoder.dim": 64, "model.decoder.dim": 64}
SCORES_SAVED = {"evaluate.save_scores": True, "evaluate.top_classes": 8}
"""What an ensemble needs of its members."""


def _with(arm: Arm, fields: Mapping[str, Any]) -> Arm:
    return dataclasses.replace(arm, fields={**arm.fields, **fields})


def _contrast(frames: int, weight: float) -> Arm:
    """Eight images a step, whatever the length of their clips, each clip contrasted by itself, as in the paper."""
    batch = 8 // frames
    fields = {"data.frames": frames, "train.batch": batch, "loss.nce.groups": batch, "loss.nce.weight": weight}
    return Arm("configs/nce.py:demo", {**fields, "data.frame_gap": 1})  # The paper's; the demo's own is wider.


PAIRS_CONTRASTED = _contrast(frames=2, weight=1.0)
"""Paper 000's contrastive model."""

BASELINE = _with(_contrast(frames=1, weight=0.0), NARROW_MASK2FORMER)
"""Paper 000's baseline: eight videos a step, nothing contrasted."""


HALF_AS_LARGE = {
    "model.image_size": (32, 32),
    "data.augment.base_size": (64, 32),
    "evaluate.stride": (32, 32),
}
"""Of LOW: crops of as much of a frame as before, half as wide and high."""

VIDEO_ALONE = Arm("configs/baseline.py:demo", {"data.epoch": "frame"})
"""`_mapped` without images: in its mixture each frame counts as much as an image."""


def _mapped(**fields: Any) -> Arm:
    """Paper 000's joint training: the drawn video together with drawn images of COCO-Stuff's classes, mapped to VSPW's.

    Args:
      fields: of both splits of the images, by name.
    """
    placed: dict[str, Any] = {}
    for member in ("coco_stuff", "coco_stuff_val"):
        own = f"data.mixture.{member}"
        drawn = {"height": 64, "width": 96, "records": f"{FOLDER}/data/coco_stuff/records"}
        drawn["source"] = f"{FOLDER}/data/coco_stuff/images"
        placed |= {f"{own}.generate.{name}": value for name, value in drawn.items()}
        placed |= {f"{own}.{name}": value for name, value in {"records": drawn["records"], **fields}.items()}
    return Arm("configs/multi_dataset.py:demo", placed)


MAPPED = _mapped()
JOINTLY_TRAINED = {**DRAWN, **LOW, **NARROW_MASK2FORMER, "data.generate.train": 120}
"""600 frames of video beside 264 images: about as many to one as in paper 000."""


PRETRAINING = {
    "model.image_size": (64, 64),
    "model.decoder.dim": 64,
    "model.projection.hidden": 64,
    "data.augment.base_size": (128, 64),
    "data.generate.height": 64,
    "data.generate.width": 128,
    "data.generate.records": f"{FOLDER}/data/pretraining/records",
    "data.generate.source": f"{FOLDER}/data/pretraining/vspw",
    "data.records": f"{FOLDER}/data/pretraining/records",
    "data.generate.seed": 2,  # Other videos than those of the fine-tuning.
    "data.mixture.coco_stuff.generate.height": 64,
    "data.mixture.coco_stuff.generate.width": 96,
    "data.mixture.coco_stuff.generate.records": f"{FOLDER}/data/coco_stuff/records",
    "data.mixture.coco_stuff.generate.source": f"{FOLDER}/data/coco_stuff/images",
    "data.mixture.coco_stuff.records": f"{FOLDER}/data/coco_stuff/records",
    "train.steps": 200,
    "evaluate.stride": (64, 64),  # Of nothing, but checked against the crop.
    "run.picture_every": 100_000,
}
"""Fields by which the demo of the pretraining is made smaller, and draws its data into the study's folder."""


FINE_TUNED = {
    # Few labels and few steps: what pretraining is for.
    **DRAWN,
    **LOW,
    "model.decoder.dim": 64,
    "data.generate.train": 24,
    "train.steps": 150,
}


def _pretrained(**fields: Any) -> Arm:
    """Fine-tuning of a pretraining with such fields of `model.bank` and `loss.prototypes`, by their last names."""
    sections = {"kind": "model.bank"}
    placed = {
        f"{sections.get(name, 'loss.prototypes')}.{name.replace('__', '.')}": value for name, value in fields.items()
    }
    return Arm("configs/mdp_finetune.py:demo", pretraining=Arm("configs/mdp.py:demo", {**PRETRAINING, **placed}))


def _ssltm(transformer: bool = True, reference: bool = True, clusters: bool = True) -> Arm:
    """OCRNet with some of SSLTM's parts; eight labelled queries a step, each with the frames that its parts read."""
    fields: dict[str, Any] = {"data.frames": (2 if transformer else 1) + reference}
    if not transformer:
        fields |= {"model.decoder.blocks": 0, "model.decoder.short_term": 1}
    if reference:
        fields["data.reference_distance"] = (4, 11)  # Of videos of 12 frames.
    else:
        fields |= {"model.decoder.context": "query", "data.reference_distance": ()}
    if not clusters:
        fields |= {"model.decoder.clusters": 0, "loss.segmentation.weights.clusters": 0.0}
    return Arm("configs/ssltm.py:demo", fields)


MEMORIES = {
    # 16 decoded images a step in every arm. Decoder A learns from both frames of 8 clips, B from one frame of 16;
    # UperNet does both, so that it differs from each in the memory alone.
    "upernet": Arm("configs/upernet.py:demo", {"data.frames": 2, "train.batch": 8}),
    "upernet_singles": Arm("configs/upernet.py:demo", {"train.batch": 16}),
    "memory_a": Arm("configs/memory_a.py:demo", {"train.batch": 8}),
    "memory_b": Arm("configs/memory_b.py:demo", {"train.batch": 16}),
}
"""Paper 001's decoders and what they are compared with."""

SSLTM_PARTS = {
    "ocrnet": _ssltm(transformer=False, reference=False, clusters=False),
    "stt": _ssltm(reference=False, clusters=False),
    "stt_rfce": _ssltm(clusters=False),
    "ssltm": _ssltm(),
}
"""Paper 002's parts, one more in each arm."""
ONE_PART_MORE = (("stt", "ocrnet"), ("stt_rfce", "stt"), ("ssltm", "stt_rfce"), ("ssltm", "ocrnet"))

DISTURBED = {"data.generate.disturbances": "drawn"}
"""Frames of the drawn video that need their neighbours."""

PRETRAINED = {
    "pixels": _pretrained(kind="none", weights__mixed=0.0),
    "regions": _pretrained(kind="region", weights__mixed=0.0),
    "prototypes": _pretrained(weights__mixed=0.0),
    "mixing": _pretrained(),
    "sparse": _pretrained(sparse_views=("first", "second", "mixed")),
}
"""Paper 003's pretrainings."""

ONE_LABEL_A_VIDEO = {
    "model.decoder.dim": 64,
    "model.decoder.key_dim": 32,
    "data.generate.train_frames": 12,
    "data.labelled_frames": "drawn",  # As in paper 002.
}
OCRNET = SSLTM_PARTS["ocrnet"]
TAUGHT = {
    **OCRNET.fields,
    "train.batch": 12,  # Eight of them labelled.
    "data.unlabelled_share": 1 / 3,
    "task.threshold": 0.6,  # In so few steps nothing is as sure as 0.95.
}
"""OCRNet with a mean teacher."""


CONTRASTED = {
    "deeplabv3": {"model.decoder.dim": 64},
    "hrnet": {"model.decoder.dim": 64},
    "ocrnet": {"model.decoder.dim": 64, "model.decoder.key_dim": 32},
    "upernet_swin": {"model.decoder.dim": 64},
}
"""Paper 004's networks, by their recipes, and how they are made narrower."""


def _contrasted() -> dict[str, Arm]:
    """Each network with cross-entropy alone, with the usual contrast beside it, and with paper 004's."""
    arms = {}
    for name, narrow in CONTRASTED.items():
        arms[name] = Arm(f"configs/{name}.py:demo", narrow)
        for short, form in (("contrast", "equation_1"), ("pne", "paper")):
            arms[f"{name}_{short}"] = Arm(f"configs/{name}_pne.py:demo", {**narrow, "loss.pne.form": form})
    return arms


STUDIES: dict[str, Study] = {
    "contrast": Study(
        claim="The cross-frame contrastive loss raises mIoU, with two frames a clip more than with four "
        "(arXiv 2306.03508, table 3: 58.05, with four frames 60.0, with two 60.95).",
        decides="mIoU",
        arms={
            "baseline": _contrast(frames=1, weight=0.0),
            # The clips of the next arm without its loss: eight images of four or two videos teach less than of eight.
            "clips_2": _contrast(frames=2, weight=0.0),
            "nce_2": PAIRS_CONTRASTED,
            "clips_4": _contrast(frames=4, weight=0.0),
            "nce_4": _contrast(frames=4, weight=1.0),
        },
        pairs=(
            ("nce_2", "clips_2"),
            ("nce_4", "clips_4"),
            ("nce_4", "nce_2"),
            ("clips_2", "baseline"),
            ("nce_2", "baseline"),
        ),
        fields={**DRAWN, **SMALL, **NARROW_MASK2FORMER},
    ),
    "frames": Study(
        claim="The cross-frame contrastive loss takes two adjacent frames (arXiv 2306.03508, introduction and section "
        "3.2). The paper compares no other distance: does mIoU fall where the frames lie farther apart?",
        decides="mIoU",
        arms={f"gap_{gap}": _with(PAIRS_CONTRASTED, {"data.frame_gap": gap}) for gap in (1, 2, 4, 8)},
        pairs=(("gap_2", "gap_1"), ("gap_4", "gap_1"), ("gap_8", "gap_1"), ("gap_8", "gap_4")),
        # A clip ends within its video: of 25 frames the last 8 alone begin none of the widest clips.
        fields={**DRAWN, **LOW, **NARROW_MASK2FORMER, "data.generate.train_frames": 25},
    ),
    "late_queries": Study(
        claim="The query decoder learns late where classes show in texture alone (video drawn with shared colours). Is "
        "it the warm-up of the rate, how its queries are initialised, the contrast and its temperature, the points of "
        "the mask loss, or that clips show fewer videos a step? Or does it need more steps and nothing else?",
        decides="mIoU",
        arms={
            "queries": BASELINE,
            "upernet": Arm("configs/upernet.py:demo", NARROW_UPERNET),
            "no_warmup": _with(BASELINE, {"schedule.warmup_steps": 0}),
            "long_warmup": _with(BASELINE, {"schedule.warmup_steps": 150}),
            "small_queries": _with(BASELINE, {"model.decoder.query_std": 0.02}),
            "points": _with(BASELINE, {"loss.segmentation.num_points": 1024}),
            "pairs": _with(_contrast(frames=2, weight=0.0), NARROW_MASK2FORMER),
            "contrast": _with(PAIRS_CONTRASTED, NARROW_MASK2FORMER),
            "soft_contrast": _with(PAIRS_CONTRASTED, {**NARROW_MASK2FORMER, "loss.nce.temperature": 0.5}),
            "twice_the_steps": _with(BASELINE, {"train.steps": 600}),
        },
        pairs=(
            ("upernet", "queries"),
            ("no_warmup", "queries"),
            ("long_warmup", "queries"),
            ("small_queries", "queries"),
            ("points", "queries"),
            ("pairs", "queries"),
            ("contrast", "pairs"),
            ("soft_contrast", "contrast"),
            ("twice_the_steps", "queries"),
        ),
        fields={**DRAWN, **LOW, "data.generate.colours": "shared"},
    ),
    "views": Study(
        claim="Averaging scores raises mIoU: with those of the mirror image and of other sizes, as paper 000 tests, "
        "and along optical flow with those of the frame before, which its authors tried and found not stable "
        "(arXiv 2306.03508, sections 3.2 and 4).",
        decides="mIoU",
        arms={
            "alone": PAIRS_CONTRASTED,
            "flip": Evaluated("alone", {"evaluate.flip": True}),
            "scales": Evaluated("alone", {"evaluate.scales": (0.75, 1.0, 1.25)}),
            "flip_and_scales": Evaluated("alone", {"evaluate.flip": True, "evaluate.scales": (0.75, 1.0, 1.25)}),
            "flow": Evaluated("alone", {"evaluate.flow_weight": 0.5}),
            "flow_and_flip": Evaluated("alone", {"evaluate.flow_weight": 0.5, "evaluate.flip": True}),
        },
        pairs=(
            ("flip", "alone"),
            ("scales", "alone"),
            ("flip_and_scales", "alone"),
            ("flip_and_scales", "flip"),
            ("flow", "alone"),
            ("flow_and_flip", "flip"),
        ),
        fields={**DRAWN, **SMALL, **NARROW_MASK2FORMER},
    ),
    "mapping": Study(
        claim="Larger crops raise mIoU, images of COCO-Stuff with their labels mapped to VSPW's raise it further, and "
        "drop-out of 0.5 once more (arXiv 2306.03508, table 2: 58.49, 60.30, 60.77, 61.32). The paper leaves out "
        "images of which less than 80 % map, and does not say what that brings.",
        decides="mIoU",
        arms={
            "small_crop": _with(VIDEO_ALONE, HALF_AS_LARGE),
            "video_alone": VIDEO_ALONE,
            "mapped": MAPPED,
            "mapped_dropout": _with(MAPPED, {"model.encoder.drop_path": 0.5}),  # As the recipe reads "dropout".
            # Of every drawn image 80 % map, but of 54 of 264 less than 95 %: those are left out here.
            "mapped_filtered": _mapped(min_mapped=0.95),
        },
        pairs=(
            ("video_alone", "small_crop"),
            ("mapped", "video_alone"),
            ("mapped_dropout", "mapped"),
            ("mapped_filtered", "mapped"),
        ),
        fields=JOINTLY_TRAINED,
    ),
    "ensemble": Study(
        claim="The weighted sum of the contrastive and the multi-dataset model's scores is better than either, than "
        "the mean of three models' scores and than the vote of several (arXiv 2306.03508, tables 4 and 5: 64.92 and "
        "63.56; weighted 65.95, mean of three 65.72, vote 65.93).",
        decides="mIoU",
        arms={
            "contrastive": PAIRS_CONTRASTED,
            "mapped": MAPPED,
            "mapped_small_crop": _with(MAPPED, HALF_AS_LARGE),
            "mean_of_two": Ensemble(("contrastive", "mapped")),
            "weighted": Ensemble(("contrastive", "mapped"), "weighted"),
            "mean_of_three": Ensemble(("contrastive", "mapped", "mapped_small_crop")),
            "vote_of_three": Ensemble(("contrastive", "mapped", "mapped_small_crop"), "vote"),
        },
        pairs=(
            ("weighted", "contrastive"),
            ("weighted", "mapped"),
            ("weighted", "mean_of_two"),
            ("mean_of_three", "weighted"),
            ("vote_of_three", "weighted"),
            ("vote_of_three", "mean_of_three"),
            ("mean_of_two", "mapped"),
        ),
        fields={**JOINTLY_TRAINED, **SCORES_SAVED},
    ),
    "encoders": Study(
        claim="Mask2Former is better than UperNet, and BEiTv2 with ViT-Adapter the best encoder (arXiv 2306.03508, "
        "table 1: UperNet on FocalNet 47.35, on Swin 48.2, on InternImage 48.52, Mask2Former on EVA 57.45, on BEiTv2 "
        "with ViT-Adapter 58.49). There pre-trained weights decide, and the encoders differ in size; here all are as "
        "large and start from random weights.",
        decides="mIoU",
        arms={
            f"{encoder}_{decoder}": Arm(f"benchmarks/ablation/encoder_recipes.py:{encoder}_{decoder}")
            for decoder in encoder_recipes.DECODERS
            for encoder in encoder_recipes.ENCODERS
        },
        pairs=(
            *((f"{encoder}_mask2former", f"{encoder}_upernet") for encoder in encoder_recipes.ENCODERS),
            *(
                (f"beit_adapter_{decoder}", f"{encoder}_{decoder}")
                for decoder in encoder_recipes.DECODERS
                for encoder in encoder_recipes.ENCODERS
                if encoder != "beit_adapter"
            ),
        ),
        fields={**DRAWN, **LOW},
    ),
    "memory": Study(
        claim="A feature memory raises UperNet's mIoU, read by the mask of the frame before (decoder A) or after "
        "attention over past frames (decoder B), more in a second stage, and both together most (Memory Based Video "
        "Scene Parsing, tables 1 and 2: 60.02; A 61.24, B 61.18).",
        decides="mIoU",
        arms={
            **MEMORIES,
            "memory_a_stage_1": Evaluated("memory_a", {"evaluate.stages": 1}),
            "memory_a_stage_3": Evaluated("memory_a", {"evaluate.stages": 3}),
            "memory_a_pyramid": Arm(
                "configs/memory_a.py:demo", {"train.batch": 8, "model.decoder.memory_space": "pyramid"}
            ),
            "a_and_b": Ensemble(("memory_a", "memory_b")),
            # What two networks give without a memory to thank for it.
            "upernet_and_b": Ensemble(("upernet_singles", "memory_b")),
        },
        pairs=(
            ("memory_a", "upernet"),
            ("memory_b", "upernet_singles"),
            ("memory_a_stage_1", "memory_a"),
            ("memory_a_stage_3", "memory_a"),
            ("memory_a_pyramid", "memory_a"),
            ("a_and_b", "memory_a"),
            ("a_and_b", "memory_b"),
            ("a_and_b", "upernet_and_b"),
            ("upernet_singles", "upernet"),
        ),
        fields={**DRAWN, **SMALL, **NARROW_UPERNET, **SCORES_SAVED},
    ),
    "memory_disturbed": Study(
        claim="A feature memory raises UperNet's mIoU (Memory Based Video Scene Parsing, table 1: 60.02; A 61.24, B "
        "61.18), and by more where dark, overexposed, blurred or hidden frames need their neighbours (compare "
        "`memory`).",
        decides="mIoU",
        arms=MEMORIES,
        pairs=(("memory_a", "upernet"), ("memory_b", "upernet_singles"), ("upernet_singles", "upernet")),
        fields={**DRAWN, **SMALL, **NARROW_UPERNET, **DISTURBED},
    ),
    "pne": Study(
        claim="The positive-negative equal contrast raises mIoU more than the usual asymmetric one, on each of four "
        "networks (Wang et al., 2022, table 5, DeepLabV3 on ResNet-101 and Cityscapes: 78.5, with the usual contrast "
        "79.1, with theirs 80.8).",
        decides="mIoU",
        arms=_contrasted(),
        pairs=tuple(
            (f"{name}_{arm}", f"{name}{less}")
            for name in CONTRASTED
            for arm, less in (("contrast", ""), ("pne", ""), ("pne", "_contrast"))
        ),
        fields={**DRAWN, **LOW},
    ),
    "mdp": Study(
        claim="Pretraining on labelled data sets helps fine-tuning on another one, by prototypes more than by pixels, "
        "and most with mixed images (arXiv 2106.04121, tables 1 to 3: 44.78, 68.05, 69.72, 70.92).",
        decides="mIoU",
        arms={
            "scratch": Arm("configs/mdp_finetune.py:demo"),
            **{name: PRETRAINED[name] for name in ("pixels", "prototypes", "mixing")},
        },
        pairs=(
            ("pixels", "scratch"),
            ("prototypes", "scratch"),
            ("prototypes", "pixels"),
            ("mixing", "prototypes"),
            ("mixing", "scratch"),
        ),
        fields=FINE_TUNED,
    ),
    "mdp_variants": Study(
        claim="A bank of regions lies between pixels and prototypes, and sparse coding helps on data sets that the "
        "pretraining did not see (arXiv 2106.04121, tables 2 and 4: 68.05, 68.69, 69.72).",
        decides="mIoU",
        arms=PRETRAINED,
        pairs=(("regions", "pixels"), ("prototypes", "regions"), ("sparse", "mixing")),
        fields=FINE_TUNED,
    ),
    "ssltm": Study(
        claim="From one labelled frame a video each part of SSLTM raises OCRNet's mIoU: the transformer over frames, "
        "the context of a reference frame, the clusters of all classes (Simultaneously Short- and Long-Term Temporal "
        "Modeling, supplementary, table 1: 39.56, all three parts 43.11).",
        decides="mIoU",
        arms=SSLTM_PARTS,
        pairs=ONE_PART_MORE,
        fields={**DRAWN, **LOW, **ONE_LABEL_A_VIDEO},
    ),
    "ssltm_disturbed": Study(
        claim="Each part of SSLTM raises OCRNet's mIoU (Simultaneously Short- and Long-Term Temporal Modeling, "
        "supplementary, table 1: 39.56, all three parts 43.11), and by more where dark, overexposed, blurred or "
        "hidden frames need their neighbours (compare `ssltm`).",
        decides="mIoU",
        arms=SSLTM_PARTS,
        pairs=ONE_PART_MORE,
        fields={**DRAWN, **LOW, **ONE_LABEL_A_VIDEO, **DISTURBED},
    ),
    "few_labels": Study(
        claim="With one labelled frame a video a mean teacher for the other frames raises mIoU, more than training "
        "again on labels that the network itself made (Simultaneously Short- and Long-Term Temporal Modeling, "
        "supplementary, table 1: 43.11, with the teacher 44.37, and figure 3).",
        decides="mIoU",
        arms={
            "labels_alone": OCRNET,
            "mean_teacher": Arm("configs/ssltm_mean_teacher.py:demo", TAUGHT),
            "iterative": dataclasses.replace(OCRNET, labels_of="labels_alone", surest=0.6),
            "all_labels": _with(OCRNET, {"data.labelled_frames": "all"}),
        },
        pairs=(
            ("mean_teacher", "labels_alone"),
            ("iterative", "labels_alone"),
            ("mean_teacher", "iterative"),
            ("all_labels", "labels_alone"),
        ),
        # 24 labels: of 240 all labels teach no more than one a video does.
        fields={**DRAWN, **LOW, **ONE_LABEL_A_VIDEO, "data.generate.train": 24},
    ),
}
