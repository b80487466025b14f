"""What is read and how it is shown to the network: `config.data`."""

from ml_collections import ConfigDict


def vspw(base_size: tuple[int, int]) -> ConfigDict:
    """Single frames of VSPW, with mmsegmentation's augmentation.

    Args:
      base_size: (width, height) into which a frame is fitted before it is resized at random.
    """
    data = ConfigDict()
    data.records = "data/vspw/records"  # Written by data_prep.vspw.
    data.train_split = "train"
    data.eval_split = "val"
    data.frames = 1  # T.
    data.frame_gap = 1  # Records from one frame of a clip to the next.
    data.chosen = "first"  # The frame of a clip that an epoch chooses; or "last".
    data.reference_distance = ()  # Or (10, 60): a clip's first frame is a reference so far from the chosen one.
    data.views = "one"  # Of a clip; "two" as MoCo v2 augments, "two_frames" of two frames; see data/views.py.
    # Which frames keep their labels: "all", of each video "first", "middle" or "drawn", or a share such as "0.25".
    data.labelled_frames = "all"
    data.labels_seed = 0  # Of what "drawn" and a share draw.
    data.unlabelled_share = 0.0  # Of the clips: around frames without a label, for tasks that learn from them.
    data.epoch = "video"  # Or "frame"; see data/clips.py.
    data.fits = ("exact", "close", "broad")  # Of another data set's classes, which count; see classes/label_maps.py.
    data.min_mapped = 0.0  # Share of a frame's pixels that must have a class of VSPW.
    data.denominator = "all"  # Or "labelled": whose share.
    data.weight = 1.0  # Of this data set beside those of the mixture; see data/mixture.py.
    data.classes = "main"  # To which all data maps; or "union" of the data sets' own: paper 003. See data/mixture.py.
    data.mixture = ConfigDict()  # More data sets by name; see configs/multi_dataset.py.
    data.workers = 0  # Processes that decode and augment; 0: threads of this one. Ours.
    data.threads = 16  # Of all those processes together. Ours.
    data.prefetch = 32  # Batches. Ours.
    augment = data.augment = ConfigDict()
    augment.base_size = base_size
    augment.resize_ratio = (0.5, 2.0)  # Paper 000 and released.
    augment.max_class_share = 0.75  # Released: cat_max_ratio.
    augment.shrink_in_decoding = True  # Of frames that become less than half as large. Ours; see records.decode_image.
    augment.photometric = True  # Released; paper 000 lists only flip, crop and resize.
    return data


def strong() -> ConfigDict:
    """`data.augment.strong`: colours of the strong view of `data.views` "weak_and_strong"; UniMatch dataset/semi.py."""
    colours = ConfigDict()
    colours.jitter = (0.5, 0.5, 0.5, 0.25)  # Of brightness, contrast, saturation, hue, as torchvision's ColorJitter.
    colours.jitter_chance = 0.8
    colours.grey_chance = 0.2
    colours.blur_chance = 0.5
    colours.blur_sigma = (0.1, 2.0)  # Pixels of the crop.
    return colours


def coco_stuff(split: str) -> ConfigDict:
    """A split of COCO-Stuff as a member of a mixture."""
    member = ConfigDict()
    member.records = "data/coco_stuff/records"  # Written by data_prep.coco_stuff.
    member.split = split
    member.weight = 1.0  # Paper 000, section 2.2: "as a whole".
    member.epoch = "frame"
    member.frame_gap = 1
    member.fits = ("exact", "close", "broad")  # Paper 000: "the closest semantic meaning"; the tables are ours.
    member.min_mapped = 0.8  # Paper 000, introduction: "effective labels were greater than 80%".
    member.denominator = "all"  # The paper does not say; ours.
    return member


def ade20k(split: str) -> ConfigDict:
    """A split of ADE20K, taken as COCO-Stuff's."""
    member = coco_stuff(split)
    member.records = "data/ade20k/records"  # Written by data_prep.ade20k.
    return member


def draw_video(data: ConfigDict) -> None:
    """Has a recipe draw its own video, where its records are not replaced by others."""
    data.records = "data/demo/records"
    data.generate = ConfigDict(dict(layout="vspw", train=240, val=12, height=96, width=176, seed=0))
    data.generate.update(train_frames=5, frames=20)  # Many videos teach more than long ones; VC16 asks for 16 frames.
    data.generate.colours = "typical"  # Of a class; or "shared" by all classes, which is harder.
    data.generate.disturbances = "none"  # Or "drawn": some frames need their neighbours.
    data.generate.source, data.generate.records = "data/demo/vspw", data.records
    data.augment.update(base_size=(176, 96), resize_ratio=(0.75, 1.5), photometric=False)  # Few steps learn few views.
    data.update(threads=2, prefetch=4)


def draw_images(member: ConfigDict) -> None:
    """Has a recipe draw the images of a mixture's member in COCO-Stuff's layout."""
    member.records = "data/demo_coco_stuff/records"
    member.generate = ConfigDict(dict(layout="coco_stuff", train=240, val=24, height=96, width=128, seed=1))
    member.generate.colours = "typical"
    member.generate.source, member.generate.records = "data/demo_coco_stuff/images", member.records
