"""The baseline of paper 000: BEiTv2-L with ViT-Adapter and Mask2Former, single frames, segmentation loss alone.

    python -m vspw_jax.main --config=configs/baseline.py --config.data.records=DIR      paper: 58.05 mIoU on test 1
    python -m vspw_jax.main --config=configs/baseline.py:demo                           generated data, a laptop

Every value carries its source: "paper" is arXiv 2306.03508; "released" is czczup/ViT-Adapter
segmentation/configs/ade20k/mask2former_beitv2_adapter_large_896_80k_ade20k_ss.py and its base mask2former_beit.py;
"CFFM" is GuoleiSun/VSS-CFFM's VSPW recipe; "ours" a choice of this codebase.
"""

from ml_collections import ConfigDict


def get_config(size="full"):
    """The recipe at its published size, or at one that a laptop trains in minutes (size "demo")."""
    config = ConfigDict()
    config.seed = 0
    config.init_from = ""  # A PyTorch checkpoint that a new workdir starts from; paper and released: BEiTv2-L's.

    config.model = ConfigDict()
    config.model.image_size = (480, 480)  # Crop, height and width; paper section 3.2. Multiples of 32.
    config.model.num_classes = 124  # VSPW.
    config.model.dtype = "float32"  # Of the computation; parameters are always float32. Released: no fp16.
    config.model.remat = "full"  # "none", "dots" or "full": what the backward pass recomputes. Released: with_cp.

    encoder = config.model.encoder = ConfigDict()
    encoder.name = "vit_adapter"
    encoder.dim = 1024  # Released, as all of the encoder.
    encoder.depth = 24
    encoder.heads = 16
    encoder.mlp_ratio = 4.0
    encoder.layer_scale = 1e-6  # Initial value of the blocks' gamma_1 and gamma_2 and of the injectors' gamma.
    encoder.drop_path = 0.3  # Linear from 0 over the blocks; the extractors have the full rate.
    encoder.adapter_channels = 64  # Of the convolutional stem.
    encoder.adapter_heads = 16  # Deformable attention of injectors and extractors.
    encoder.adapter_points = 4
    encoder.adapter_value_ratio = 0.5
    encoder.adapter_ffn_ratio = 0.25
    encoder.extra_extractors = 2

    decoder = config.model.decoder = ConfigDict()
    decoder.name = "mask2former"
    decoder.dim = 1024  # Released, as all of the decoder.
    decoder.heads = 32
    decoder.points = 4  # Sampling points of the pixel decoder's deformable attention.
    decoder.encoder_ffn_dim = 4096  # Of the pixel decoder's encoder layers, the next of the decoder's layers.
    decoder.ffn_dim = 4096
    decoder.encoder_layers = 6
    decoder.decoder_layers = 9
    decoder.num_queries = 200
    decoder.norm_groups = 32

    projection = config.model.projection = ConfigDict()  # For contrastive losses; training alone runs it.
    projection.dim = 0  # Its width, 0 for none. ContrastiveSeg (tfzhou/ContrastiveSeg) has 256; paper 000 states none.
    projection.hidden = 0  # Width between its two layers; 0 is that of its input, as in ContrastiveSeg.
    projection.input = "encoder"  # Or "decoder": the features at 1/4 of which masks or logits are made.
    projection.level = 2  # The encoder's map: 0 to 3 for 1/4 to 1/32. ContrastiveSeg projects what it classifies.

    config.loss = ConfigDict()
    config.loss.weight = 1.0  # Lambda 1 of equation 3, paper section 2.5.
    segmentation = config.loss.segmentation = ConfigDict()
    # Equation 4 of the paper has dice 5 and cross-entropy 1; it names no mask cross-entropy, which stays as released.
    # To the letter: --config.loss.segmentation.weights.mask=0 --config.loss.segmentation.matching.mask=0.
    segmentation.weights = {"cls": 1.0, "mask": 5.0, "dice": 5.0}
    segmentation.matching = {"cls": 2.0, "mask": 5.0, "dice": 5.0}  # Released.
    segmentation.no_object_weight = 0.1  # Released, as the next three.
    segmentation.num_points = 12544
    segmentation.oversample = 3.0
    segmentation.importance = 0.75
    segmentation.void = "background"  # Released; or "excluded": what lies under void moves nothing.
    segmentation.capacity = 40  # Classes that one frame may hold; ours. More is an error, never a cut.

    config.optimizer = ConfigDict()
    config.optimizer.learning_rate = 2e-5  # Paper section 3.2 and released.
    config.optimizer.warmup_steps = 1500  # Paper and released.
    config.optimizer.warmup_ratio = 1e-6  # Paper and released.
    config.optimizer.power = 1.0  # Released, as the rest: poly decay to `minimum`.
    config.optimizer.minimum = 0.0
    config.optimizer.beta1 = 0.9
    config.optimizer.beta2 = 0.999
    config.optimizer.weight_decay = 0.05
    config.optimizer.layer_decay = 0.9
    config.optimizer.embeddings_at_layer_0 = True  # An oddity of the released code; see optimizers.layer_scales.
    config.optimizer.clip_norm = 0.0  # 0 is none.

    config.train = ConfigDict()
    config.train.steps = 40_000  # Paper.
    config.train.batch = 4  # Clips a step over all devices; paper: 2 GPUs with 2 images each.
    config.train.accumulate = 1  # Equal parts of the batch that follow each other, for want of memory; paper: 1.

    config.sharding = ConfigDict()  # How devices share the state; changes a result by rounding alone.
    # Devices among which each copy of weights and optimizer state is divided: 1 repeats it on each, 0 is all of them
    # (fully sharded, ZeRO's stage 3: arXiv 1910.02054). Between, copies are repeated, as PyTorch's HYBRID_SHARD does.
    config.sharding.fsdp = 1  # Released: DistributedDataParallel.
    config.sharding.whole_below = 2**16  # Elements; smaller weights are never divided. Ours: a gather costs latency.

    config.data = ConfigDict()
    config.data.records = "data/vspw/records"  # Written by data_prep.vspw.
    config.data.train_split = "train"
    config.data.eval_split = "val"
    config.data.frames = 1  # T.
    config.data.frame_gap = 1  # Records from one frame of a clip to the next.
    config.data.epoch = "video"  # Or "frame"; see data/clips.py.
    config.data.fits = ("exact", "close", "broad")  # Of another data set's classes, which count; see data/records.py.
    config.data.min_mapped = 0.0  # Share of a frame's pixels that must have a class of VSPW.
    config.data.denominator = "all"  # Or "labelled": whose share.
    config.data.weight = 1.0  # Of this data set beside those of the mixture; see data/mixture.py.
    config.data.mixture = ConfigDict()  # More data sets by name; see configs/multi_dataset.py.
    config.data.workers = 0  # Processes that decode and augment; 0: threads of this one. Ours, as the next two.
    config.data.threads = 16  # Of all those processes together.
    config.data.prefetch = 32  # Batches.
    augment = config.data.augment = ConfigDict()
    augment.base_size = (853, 480)  # CFFM: Resize (853, 480), the size of VSPW-480p.
    augment.resize_ratio = (0.5, 2.0)  # Paper and released.
    augment.max_class_share = 0.75  # Released: cat_max_ratio.
    augment.shrink_in_decoding = True  # Of frames that become less than half as large. Ours; see records.decode_image.
    augment.photometric = True  # Released; the paper lists only flip, crop and resize.

    config.evaluate = ConfigDict()
    config.evaluate.stride = (320, 320)  # Released, 480 configs: slide inference.
    config.evaluate.batch = 4  # Frames at a time, of each process, shared by its devices; ours.
    config.evaluate.windows = 4  # Of those frames' windows, what a device takes in one call of the network; ours.
    config.evaluate.flip = False  # Whether scores are averaged with those of the mirror image; paper section 3.2: yes.
    config.evaluate.scales = (1.0,)  # Of the frame, averaged. Released: (800/896, 832/896, 864/896, 1), with flip.
    # The softmax of scores that the released EncoderDecoderMask2Former takes once more before views, or models, are
    # averaged. It changes averages, but no single label. Not so in mmseg's own, which per-pixel decoders have.
    config.evaluate.double_softmax = True
    config.evaluate.save_scores = False  # Whether evaluating and predicting keep scores, for vspw_jax.ensemble.
    config.evaluate.top_classes = 0  # Of each pixel, so many in saved scores; 0 is all.

    config.run = ConfigDict()  # None of these changes a result, as long as all numbers are finite.
    config.run.log_every = 50  # Steps.
    config.run.save_every = 1000
    # While training goes on; a kill then loses the steps that it made meanwhile, beside those since the save before.
    config.run.save_in_background = True
    config.run.keep = 3  # Checkpoints.
    config.run.picture_every = 1000
    config.run.non_finite = "stop"  # Where a loss or gradient is NaN or infinite; or "skip": leave that step out.
    config.run.most_skipped = 10  # In a row; one more stops.
    config.run.profile_steps = (0, 0)  # First and last step of a profiler's trace, into tensorboard/; (0, 0) is none.
    config.run.wandb = False  # Whether Weights & Biases, which must be installed, gets the figures too.
    config.run.compile_to_inspect = True  # --mode=inspect compiles the step for its memory: minutes at full size.
    config.run.afterwards = ("evaluate",)  # What follows training: "evaluate", "predict".

    return sized(config, size, shrink)


def sized(config, size, shrink):
    """The recipe at the size asked for, "full" or "demo"; `shrink` turns it into its demo."""
    if size == "demo":
        shrink(config)
    elif size != "full":
        raise ValueError(f"unknown size {size!r}: expected 'full' or 'demo'")
    return config


def shrink(config):
    """Turns a recipe into its demo: the same network, narrow and shallow, on generated video, from random weights."""
    shrink_run(config)
    config.train.steps = 1000
    config.optimizer.learning_rate = 5e-4
    config.model.encoder.update(dim=96, depth=4, heads=4, layer_scale=0.1, drop_path=0.0)
    config.model.encoder.update(adapter_channels=24, adapter_heads=4)
    config.model.decoder.update(dim=96, heads=4, encoder_ffn_dim=192, ffn_dim=192)
    config.model.decoder.update(encoder_layers=3, decoder_layers=3, num_queries=32)
    config.loss.segmentation.update(num_points=512, capacity=12)


def shrink_run(config):
    """All of a demo but its network: crop, optimizer, steps, generated video."""
    config.model.image_size = (96, 96)
    config.model.remat = "none"
    config.optimizer.update(learning_rate=1e-3, warmup_steps=50, layer_decay=1.0, clip_norm=1.0)
    config.train.update(steps=1050, batch=4)
    config.data.records = "data/demo/records"
    config.data.generate = ConfigDict(dict(layout="vspw", train=60, val=9, frames=20, height=120, width=192, seed=0))
    config.data.generate.source, config.data.generate.records = "data/demo/vspw", config.data.records
    config.data.augment.update(base_size=(192, 120))
    config.data.update(threads=2, prefetch=4)
    config.evaluate.stride = (64, 64)
    config.run.update(log_every=20, save_every=300, picture_every=500, afterwards=("evaluate", "predict"))
