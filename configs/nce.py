"""Paper 000's contrastive model: the baseline on two-frame clips, with the cross-frame contrastive loss.

    python -m vspw_jax.main --config=configs/nce.py --config.data.records=DIR      paper: 60.95 mIoU on test 1
    python -m vspw_jax.main --config=configs/nce.py:demo                           generated data, a laptop

Values and their sources are those of configs/baseline.py, but for what stands here.
"""

from ml_collections import ConfigDict

from configs import baseline


def get_config(size="full"):
    """The recipe at its published size, or at one that a laptop trains in minutes (size "demo")."""
    config = baseline.get_config(size)
    config.data.frames = 2  # Paper section 3.2: two consecutive frames.
    config.train.batch = 2  # "2 GPUs with 2 images per GPU": a clip of two frames on each.
    nce = config.loss.nce = ConfigDict()
    nce.weight = 0.1  # Lambda 2 of equation 3, paper section 2.5.
    # What the paper leaves open. "ContrastiveSeg": tfzhou/ContrastiveSeg lib/loss/loss_contrast.py and H_48_D_4.json.
    nce.start_step = 0  # The weight is 0 before this step; ContrastiveSeg: 5000. Ours, as the next: from the start.
    nce.warmup_steps = 0  # It then grows linearly over so many steps.
    nce.normalise = True  # Features to unit length before their products are taken; ContrastiveSeg.
    nce.temperature = 0.1  # ContrastiveSeg's; its factor temperature / base_temperature = 1.43 is the weight's to bear.
    nce.level = 2  # Encoder map: 0 to 3 for 1/4 to 1/32; ours, 1/16: M = 1800. A model.projection takes its place.
    # Of which clips an anchor's positives and negatives are: "clip", its own; "group", those of its one of `groups`
    # equal runs of the batch's clips; "all", the whole batch. Paper: each GPU by itself.
    nce.scope = "group"
    nce.groups = 2  # A group without labels (single images in joint training) counts 0 in the mean over groups.
    nce.labels = "nearest"  # Or "majority": labels of patches; see losses/patch_labels.py. ContrastiveSeg's.
    nce.min_share = 0.0  # Of a patch's pixels that its majority must have, lest it be void.
    # So many patches, one draw for a group, may be negatives: each anchor's are those of other classes. 0 is all.
    # ContrastiveSeg draws anchors instead, up to 1024, half of them misclassified; equation 1 has every patch.
    nce.negatives = 0
    nce.self_positive = False  # Whether an anchor is its own positive; ContrastiveSeg: not.
    nce.block = "auto"  # "plain", or anchors a strip: memory linear in M. Changes results by rounding alone.
    if size == "demo":
        config.train.batch = 4
        nce.weight = 1.0  # From random weights it teaches the encoder its classes; at 0.1 it hardly falls. Measured.
    return config
