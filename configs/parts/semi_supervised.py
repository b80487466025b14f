"""Mean teacher on a recipe's network: one labelled frame a video, and a teacher for the others.

Paper 002 (SSLTM, Lao et al., 2023) trains so and leaves every setting of the teacher open; "UniMatch" is
LiheYoung/UniMatch configs/pascal.yaml and unimatch.py, "U2PL" Haochen-Wang409/U2PL experiments/pascal/1464/ours, and
"ours" a choice of this codebase.
"""

from ml_collections import ConfigDict

from configs.parts import data, training


def one_label_a_video(config: ConfigDict) -> ConfigDict:
    """The recipe on one labelled frame of each video."""
    # The paper does not say which frame. A clip ends on it, as a network that looks back needs. "Drawn" is ours.
    config.data.update(labelled_frames="drawn", chosen="last")
    return config


def with_teacher(config: ConfigDict, size: str) -> ConfigDict:
    """The recipe with that and with as many unlabelled clips, which a teacher labels; `size` is the recipe's.

    `train.batch` counts both kinds of clips: at full size as many labelled ones a step as the recipe has, and as many
    steps; a demo's batch stays as large as it is, and half of it has labels.
    """
    one_label_a_video(config)
    config.data.unlabelled_share = 0.5  # UniMatch and U2PL: as many as labelled ones.
    config.data.views = "weak_and_strong"
    config.data.augment.photometric = False  # UniMatch and U2PL: the weak view is scaled, cropped and flipped.
    config.data.augment.strong = data.strong()
    if "void" in config.loss.segmentation:
        config.loss.segmentation.void = "excluded"  # Ours: what a teacher is unsure of is no background.
    config.task = training.mean_teacher()
    config.ema = training.ema(decay=0.99)  # U2PL; warmed up alike.
    config.ema.statistics = "own"  # U2PL.
    config.evaluate.weights = "ema"  # As paper 002's and U2PL's teacher is what they score; ours.
    if size == "demo":
        config.task.update(start_step=100, threshold=0.8)  # In 500 steps nothing is as sure.
        config.data.augment.strong.update(jitter=(0.25, 0.25, 0.25, 0.05), grey_chance=0.0)  # Colours tell classes.
        config.ema.decay = 0.98
    else:
        config.task.start_epoch = 1  # U2PL: after an epoch of labels alone (sup_only_epoch).
        config.train.batch *= 2
    return config
