"""Losses: sections of `config.loss`.

Sources: "ViT-Adapter" and "unilm" as in models.py; "ContrastiveSeg" is tfzhou/ContrastiveSeg
lib/loss/loss_contrast.py and H_48_D_4.json; "PNE" is Positive-Negative Equal Contrastive Loss for Semantic Segmentation
(Wang et al., 2022), with jingw193/PNE_Loss configs/cityscapes/deeplabv3_r101-d8_512x1024_40k_cityscapes_equal_13.py as
its released code.
"""

from ml_collections import ConfigDict


def mask_classification() -> ConfigDict:
    """`loss.segmentation` of a query decoder."""
    loss = ConfigDict()
    # Equation 4 of paper 000 has dice 5 and cross-entropy 1; it names no mask cross-entropy, which stays as released.
    # To the letter: --config.loss.segmentation.weights.mask=0 --config.loss.segmentation.matching.mask=0.
    loss.weights = {"cls": 1.0, "mask": 5.0, "dice": 5.0}
    loss.matching = {"cls": 2.0, "mask": 5.0, "dice": 5.0}  # ViT-Adapter.
    loss.no_object_weight = 0.1  # ViT-Adapter.
    loss.num_points = 12544  # ViT-Adapter.
    loss.oversample = 3.0  # ViT-Adapter.
    loss.importance = 0.75  # ViT-Adapter.
    loss.void = "background"  # ViT-Adapter; or "excluded": what lies under void moves nothing.
    loss.capacity = 40  # Classes that one frame may hold; ours. More is an error, never a cut.
    return loss


def per_pixel() -> ConfigDict:
    """`loss.segmentation` of a per-pixel decoder."""
    loss = ConfigDict()
    loss.weights = {"pixel": 1.0, "auxiliary": 0.4}  # unilm.
    # Or "all": void pixels count in the mean, as in the released code (mmseg's avg_non_ignore=False). Ours, so that the
    # padding of a crop does not weaken the loss.
    loss.averaged_over = "labelled"
    loss.class_weight = ()  # unilm: none. Else one weight a class, for its pixels.
    # Or "inverse_log" of the class's share of the training pixels, or a file; see training/class_weights.py.
    loss.class_weight_from = ""
    return loss


def memory_per_pixel() -> ConfigDict:
    """`loss.segmentation` of a decoder with a feature memory; "MCIBI" as in models.py."""
    loss = per_pixel()
    # MCIBI: the head, its first pass (loss_cls_stage1), the auxiliary head, the memory's rows.
    loss.weights = {"pixel": 1.0, "first_pass": 0.4, "auxiliary": 0.4, "memory": 1.0}
    loss.memory_start_step = 176  # Of 2806 videos by 16 a step, an epoch.
    loss.memory_start_epoch = 1  # MCIBI. More than 0: after so many, and `memory_start_step` is not read.
    return loss


def clustered_per_pixel() -> ConfigDict:
    """`loss.segmentation` of SSLTM."""
    loss = per_pixel()
    # Paper 002, supplementary, section 2.1: MSE. It states no weight; ours. 0 without clusters, and where they move
    # as an average. The heads' are VSPW_baseline's too (deep_sup_scale; models.py).
    loss.weights = {"pixel": 1.0, "auxiliary": 0.4, "clusters": 1.0}
    return loss


def cross_frame_nce() -> ConfigDict:
    """`loss.nce`: paper 000's cross-frame contrast, and what the paper leaves open."""
    nce = ConfigDict()
    nce.weight = 0.1  # Lambda 2 of equation 3, paper section 2.5.
    nce.start_step = 0  # The weight is 0 before this step; ContrastiveSeg: 5000. Ours: from the start.
    nce.warmup_steps = 0  # It then grows linearly over so many steps. Ours.
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
    return nce


def pne() -> ConfigDict:
    """`loss.pne`: paper 004's positive-negative equal loss."""
    pne = ConfigDict()
    pne.weight = 1.3  # Alpha of equation 4, by the paper's table 8; released.
    pne.start_step = 0  # The weight is 0 before this step; neither paper nor released code has a warm-up.
    pne.warmup_steps = 0  # It then grows linearly over so many steps.
    # "paper": equations 8 and 9; "released": as the code has it; "equation_1": the contrast that the paper compares
    # with. See losses/pne.py.
    pne.form = "paper"
    pne.temperature = 1.0  # Paper, table 8, and released.
    pne.anchors = 199  # Of an image; paper: |S| < 200. Released: of one (predicted, true) pair of classes.
    pne.samples = 100  # Positives, and negatives, of an anchor; released: patch_size. The paper states no number.
    # Anchors of an image that form "released" has room for, every set's first; those beyond are stood for by them.
    pne.capacity = 2048  # Ours.
    pne.hard_share = 0.1  # Of candidates that form "equation_1" draws from; ContrastiveSeg (arXiv 2101.11939), 3.2.
    pne.level = 0  # Encoder map that the loss reads where model.projection.dim is 0.
    return pne


def prototypes() -> ConfigDict:
    """`loss.prototypes`: paper 003's contrast of pixels with prototypes; "MDP" is arXiv 2106.04121.

    What a pixel is contrasted with is `model.bank.kind`: prototypes of classes, regions, or ("none") the other view.
    """
    loss = ConfigDict()
    loss.temperature = 0.07  # MDP, section 4.1 and table 2.
    # Of the views' losses, whose weighted mean is the loss; at 0 the mixed view is not made. MDP averages the two plain
    # ones; how the mixed one counts it does not say: ours.
    loss.weights = {"first": 1.0, "second": 1.0, "mixed": 1.0}
    loss.mixing = ("cutmix", "mixup")  # One of these for each clip, as likely; MDP, table 3: both are best.
    loss.mixing_alpha = 1.0  # Of the Beta distribution of shares: CutMix and mixup, which MDP cites.
    # Views with sparse coding (equation 8). MDP, table 4: better for data sets that pretraining does not see, not for
    # those that it does.
    loss.sparse_views = ()
    loss.alpha = 0.5  # MDP, section 3.4.
    loss.top = 5  # MDP, section 3.4: K.
    loss.own_in_top = True  # Whether a pixel's own class may be one of these; equation 8 does not leave it out.
    return loss
