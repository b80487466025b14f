"""Paper 004's loss on the network of paper 001: BEiT-L with UperNet, per-pixel cross-entropy and the PNE loss.

    python -m vspw_jax.main --config=configs/pne.py --config.data.records=DIR      full size; no published VSPW score
    python -m vspw_jax.main --config=configs/pne.py:demo                           generated data, a laptop

"Paper" is Positive-Negative Equal Contrastive Loss for Semantic Segmentation (Wang et al., 2022), which trains
DeepLabV3, HRNet, OCRNet and UperNet on Cityscapes, COCO-Stuff and ADE20K; "released" is jingw193/PNE_Loss, its
configs/cityscapes/deeplabv3_r101-d8_512x1024_40k_cityscapes_equal_13.py. From both only the loss and its projection are
taken: what does not stand here is as in configs/upernet.py.
"""

from ml_collections import ConfigDict

from configs import upernet


def get_config(size="full"):
    """The recipe at its published size, or at one that a laptop trains in minutes (size "demo")."""
    config = upernet.get_config(size)
    projection = config.model.projection
    projection.input = "decoder"  # Paper section 4.2.2 and released: what the classifier reads.
    projection.hidden = 512 if size == "full" else 32  # Released.
    projection.dim = 256 if size == "full" else 32  # Released.

    pne = config.loss.pne = ConfigDict()
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
    return config
