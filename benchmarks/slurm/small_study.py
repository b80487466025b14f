"""`benchmarks.ablation` with one more study, "small", of two arms that take a minute: for jobs of `launch/slurm.sh`."""

from benchmarks.ablation import __main__ as ablation
from benchmarks.ablation.arms import Arm, Study
from benchmarks.ablation.studies import DRAWN
from benchmarks.slurm.recipe import FIELDS
from vspw_jax.console.errors import run_program

NARROW = {
    "model.encoder.heads": 2,
    "model.decoder.pool_scales": (1,),
    "model.decoder.auxiliary_dim": 8,
    "data.augment.photometric": False,
    "train.steps": 60,
}
"""UperNet, compiled sooner."""
STUDY = Study(
    "Who sees pictures at a tenth of their size learns less.",
    "mIoU",
    {
        "far": Arm("configs/upernet.py:demo", {"data.augment.resize_ratio": (0.1, 0.1)}),
        "near": Arm("configs/upernet.py:demo", {"data.augment.resize_ratio": (1.0, 1.0)}),
    },
    (("near", "far"),),
    {**DRAWN, **FIELDS, **NARROW},
)

if __name__ == "__main__":
    ablation.STUDIES["small"] = STUDY
    run_program(ablation.main)
