"""Evaluation and all that changes no result: `config.evaluate` and `config.run`."""

from ml_collections import ConfigDict


def evaluate(stride: tuple[int, int], double_softmax: bool) -> ConfigDict:
    """`config.evaluate`: sliding windows, one view of a frame.

    Args:
      stride: (height, width) from one window to the next; a window is `model.image_size`.
      double_softmax: whether scores pass a second softmax before views, or models, are averaged, as in the released
        EncoderDecoderMask2Former. It changes averages, but no single label. mmsegmentation's own EncoderDecoder, which
        per-pixel decoders have, takes none.
    """
    options = ConfigDict()
    options.weights = "trained"  # Or "ema": their average, of recipes that keep one.
    options.stride = stride
    options.batch = 4  # Frames at a time, of each process, shared by its devices; ours.
    options.windows = 4  # Of those frames' windows, what a device takes in one call of the network; ours.
    options.flip = False  # Whether scores are averaged with those of the mirror image; paper 000 section 3.2: yes.
    options.scales = (1.0,)  # Of the frame, averaged. Released: (800/896, 832/896, 864/896, 1), with flip.
    options.double_softmax = double_softmax
    # So many more passes over the frames, each by the masks of the one before; for decoders that read masks. Paper 001,
    # table 2: stage 0 is the first pass.
    options.stages = 0
    # The share of the scores of the frame before, moved along optical flow, in those of a frame; 0 is none. Paper 000's
    # authors tried such a step and dropped it; see inference/flow_smoothing.py.
    options.flow_weight = 0.0
    options.save_scores = False  # Whether evaluating and predicting keep scores, for vspw_jax.ensemble.
    options.top_classes = 0  # Of each pixel, so many in saved scores; 0 is all.
    options.opacity = 0.5  # Of the classes' colours over the frame in pictures and films; 0 shows the frame alone.
    return options


def run() -> ConfigDict:
    """`config.run`: none of it changes a result, as long as all numbers are finite."""
    run = ConfigDict()
    run.log_every = 50  # Steps.
    run.save_every = 1000
    # While training goes on; a kill then loses the steps that it made meanwhile, beside those since the save before.
    run.save_in_background = True
    run.keep = 3  # Checkpoints.
    run.picture_every = 1000
    run.non_finite = "stop"  # Where a loss or gradient is NaN or infinite; or "skip": leave that step out.
    run.most_skipped = 10  # In a row; one more stops.
    run.profile_steps = (0, 0)  # First and last step of a profiler's trace, into tensorboard/; (0, 0) is none.
    run.wandb = False  # Whether Weights & Biases, which must be installed, gets the figures too.
    run.compile_to_inspect = True  # --mode=inspect compiles the step for its memory: minutes at full size.
    run.afterwards = ("evaluate",)  # What follows training: "evaluate", "predict".
    return run
