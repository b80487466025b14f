"""Task, optimizer, schedule, steps, devices, an average of the weights: how a recipe is trained.

A part has the fields of its choice and no other: SGD has a momentum and no betas.
"""

from ml_collections import ConfigDict


def supervised() -> ConfigDict:
    """`config.task`: learning from labelled clips with the terms of `config.loss`."""
    return ConfigDict({"name": "supervised"})


def prototype_pretraining() -> ConfigDict:
    """`config.task`: paper 003's contrast of pixels with prototypes of their classes, `config.loss.prototypes`."""
    return ConfigDict({"name": "prototype_pretraining"})


def mean_teacher() -> ConfigDict:
    """`config.task`: learning from unlabelled clips too, which a teacher labels; needs `config.ema`."""
    task = ConfigDict()
    task.name = "mean_teacher"
    task.weight = 1.0  # Of the term of pseudo-labels beside the labels' terms; UniMatch and U2PL.
    task.start_step = 0  # The weight is 0 before this step.
    task.start_epoch = 0  # More than 0: before so many times through the data, and `start_step` is not read.
    task.warmup_steps = 0  # It then grows linearly over so many steps.
    task.threshold = 0.95  # Of a pixel's class the teacher must be so sure; UniMatch on Pascal VOC (0: all count).
    # The term is divided by all pixels that could have a pseudo-label, as UniMatch does; or "confident": by those that
    # have one.
    task.averaged_over = "valid"
    return task


def adamw(learning_rate: float, weight_decay: float = 0.05, layer_decay: float = 1.0) -> ConfigDict:
    """`config.optimizer`: AdamW. Defaults not named by the recipe are torch's and mmsegmentation's."""
    optimizer = ConfigDict()
    optimizer.name = "adamw"
    optimizer.learning_rate = learning_rate
    optimizer.beta1 = 0.9
    optimizer.beta2 = 0.999
    optimizer.weight_decay = weight_decay
    optimizer.decayed = "kernels"  # What it pulls to 0; or "all": biases, norms and layer scales too.
    optimizer.layer_decay = layer_decay  # Each layer of the encoder has so much of the rate of the next; 1: the same.
    optimizer.clip_norm = 0.0  # Of the whole gradient; 0 is no clipping.
    return optimizer


def sgd(learning_rate: float, weight_decay: float = 5e-4) -> ConfigDict:
    """`config.optimizer`: SGD with momentum, as mmsegmentation's configs/_base_/schedules/schedule_40k.py."""
    optimizer = ConfigDict()
    optimizer.name = "sgd"
    optimizer.learning_rate = learning_rate
    optimizer.momentum = 0.9
    optimizer.nesterov = False
    optimizer.weight_decay = weight_decay
    optimizer.decayed = "all"  # Norms and biases too; or "kernels": not these.
    optimizer.layer_decay = 1.0  # Each layer of the encoder has so much of the rate of the next; 1: the same.
    optimizer.clip_norm = 0.0  # Of the whole gradient; 0 is no clipping.
    return optimizer


def _schedule(name, warmup_steps):
    schedule = ConfigDict()
    schedule.name = name
    schedule.warmup_steps = warmup_steps  # A line from `warmup_ratio` to 1, times the decayed rate.
    schedule.warmup_ratio = 1e-6  # mmsegmentation's configs of transformers.
    schedule.minimum = 0.0  # The rate at the end.
    return schedule


def poly(power: float = 1.0, warmup_steps: int = 0) -> ConfigDict:
    """`config.schedule`: polynomial decay; mmsegmentation has power 1 for transformers, 0.9 for convolutions."""
    schedule = _schedule("poly", warmup_steps)
    schedule.power = power
    return schedule


def cosine(warmup_steps: int = 0) -> ConfigDict:
    """`config.schedule`: half a cosine."""
    return _schedule("cosine", warmup_steps)


def steps(count: int, batch: int) -> ConfigDict:
    """`config.train`: a run of so many steps."""
    train = ConfigDict()
    train.steps = count
    train.epochs = 0  # More than 0: so many times through the data, and `steps` is not read.
    train.batch = batch  # Clips a step over all devices.
    train.accumulate = 1  # Equal parts of the batch that follow each other, for want of memory.
    return train


def epochs(count: int, batch: int, expected_steps: int) -> ConfigDict:
    """`config.train`: a run of so many times through its data; how long it is on the published data is told beside."""
    train = steps(expected_steps, batch)
    train.epochs = count
    return train


def devices() -> ConfigDict:
    """`config.sharding`: how devices share the state; it changes a result by rounding alone."""
    sharding = ConfigDict()
    # Devices among which each copy of weights and optimizer state is divided: 1 repeats it on each, 0 is all of them
    # (fully sharded, ZeRO's stage 3: arXiv 1910.02054). Between, copies are repeated, as PyTorch's HYBRID_SHARD does.
    sharding.fsdp = 1  # DistributedDataParallel, as the released code.
    sharding.whole_below = 2**16  # Elements; smaller weights are never divided. Ours: a gather costs latency.
    return sharding


def ema(decay: float = 0.999) -> ConfigDict:
    """`config.ema`: an exponential moving average of the weights, to be scored and exported, or a task's teacher.

    Without this section a run keeps none.
    """
    average = ConfigDict()
    average.decay = decay  # The share that stays at a step; mean teacher (arXiv 1703.01780): 0.999.
    average.warmup = True  # At step s at most 1 - 1 / (s + 1), as mean teacher: the first weights are soon forgotten.
    # Batch statistics and memories of the average: "averaged" as weights are, or "own", those that a teacher's passes
    # leave.
    average.statistics = "averaged"
    return average


def key_encoder(decay: float = 0.999) -> ConfigDict:
    """`config.ema`: MoCo's key encoder, as facebookresearch/moco moco/builder.py keeps it.

    There it is updated before its pass, here after the optimizer: it is the same at every pass.
    """
    average = ema(decay)
    average.warmup = False
    average.statistics = "own"  # Of its batch norms: those of its own passes.
    return average
