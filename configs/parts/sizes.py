"""A recipe's sizes: as published ("full"), one that a laptop trains in minutes ("demo"), and those for data sets."""

from collections.abc import Callable, Mapping

from ml_collections import ConfigDict

from configs.parts import data


def sized(
    config: ConfigDict,
    size: str,
    shrink: Callable[[ConfigDict], None],
    data_sets: Mapping[str, Callable[[ConfigDict], None]] | None = None,
) -> ConfigDict:
    """The recipe at the size asked for; `shrink` turns it into its demo, each of `data_sets` into another size.

    Raises:
      ValueError: there is no such size.
    """
    data_sets = data_sets or {}
    if size == "demo":
        shrink(config)
    elif size in data_sets:
        data_sets[size](config)
    elif size != "full":
        *others, last = map(repr, ("full", "demo", *data_sets))
        raise ValueError(f"unknown size {size!r}: expected {', '.join(others)} or {last}")
    return config


def shrink_run(config: ConfigDict) -> None:
    """All of a demo but its network: crop, optimizer, steps, drawn video."""
    config.model.image_size = (96, 96)
    config.model.remat = "none"
    config.optimizer.update(learning_rate=2e-3, layer_decay=1.0, clip_norm=1.0)
    if "beta2" in config.optimizer:
        # In so few steps a moment over 1000 of them (beta2 0.999) is still that of the first. Measured.
        config.optimizer.beta2 = 0.99
    config.schedule.warmup_steps = 50
    config.train.update(steps=500, epochs=0, batch=8)
    data.draw_video(config.data)
    config.evaluate.stride = (96, 80)  # Two windows cover a frame.
    config.run.update(log_every=20, save_every=250, picture_every=250, afterwards=("evaluate", "predict"))


def shrink_mask2former(config: ConfigDict) -> None:
    """The demo of a ViT-Adapter with Mask2Former: narrow, shallow, from random weights."""
    shrink_run(config)
    config.model.encoder.update(dim=96, depth=4, heads=4, layer_scale=0.1, drop_path=0.0)
    config.model.encoder.update(adapter_channels=24, adapter_heads=4)
    small_mask2former(config)


def small_mask2former(config: ConfigDict) -> None:
    """The decoder of a demo, and its loss."""
    config.model.decoder.update(dim=96, heads=4, encoder_ffn_dim=192, ffn_dim=192)
    config.model.decoder.update(encoder_layers=2, decoder_layers=3, num_queries=24)
    config.loss.segmentation.update(num_points=256, capacity=12)
    config.loss.segmentation.weights.cls = 2.0  # Mask2Former's; paper 000 has 1.


def shrink_upernet(config: ConfigDict) -> None:
    """The demo of a BEiT with UperNet: narrow, shallow, from random weights."""
    shrink_run(config)
    config.model.encoder.update(dim=96, depth=4, heads=4, layer_scale=0.1, drop_path=0.0, out_blocks=(1, 2, 3, 4))
    config.model.decoder.update(dim=96, auxiliary_dim=32)


def shrink_deeplabv3(config: ConfigDict) -> None:
    """The demo of a dilated ResNet with DeepLabV3: narrow, shallow, from random weights."""
    shrink_run(config)
    config.optimizer.update(learning_rate=0.05)
    config.model.encoder.update(width=16, depths=(1, 1, 1, 1))
    config.model.decoder.update(dim=96, dilations=(2, 4, 6), auxiliary_dim=32)  # Twelve cells a side.


def shrink_hrnet(config: ConfigDict) -> None:
    """The demo of an HRNet with its own head: narrow, with few blocks, from random weights."""
    shrink_run(config)
    config.optimizer.update(learning_rate=0.05)
    config.model.encoder.update(width=12, stem_width=24, bottleneck_width=12)
    config.model.encoder.update(bottlenecks=1, modules=(1, 1, 1), blocks=2)
    config.model.decoder.dim = 96


def shrink_ocrnet(config: ConfigDict) -> None:
    """The demo of an HRNet with OCRNet."""
    shrink_hrnet(config)
    config.model.decoder.update(key_dim=48, auxiliary_dim=48)


def shrink_segformer(config: ConfigDict) -> None:
    """The demo of a MiT with SegFormer's decoder: narrow, shallow, from random weights."""
    shrink_run(config)
    config.optimizer.decoder_rate = 1.0  # Nothing was trained before.
    config.model.encoder.update(dims=(32, 64, 96, 128), depths=(2, 2, 2, 2), head_dim=16, drop_path=0.0)
    config.model.decoder.dim = 96


def shrink_eva01(config: ConfigDict) -> None:
    """The demo of an EVA-01 with ViT-Adapter and Mask2Former: narrow, shallow, from random weights."""
    shrink_run(config)
    config.model.encoder.update(dim=96, depth=4, heads=4, mlp_ratio=4.0, drop_path=0.0)
    config.model.encoder.update(adapter_channels=24, adapter_heads=4)
    small_mask2former(config)


def shrink_eva(config: ConfigDict) -> None:
    """The demo of an EVA-02 with Mask2Former: narrow, shallow, from random weights."""
    shrink_run(config)
    config.model.encoder.update(dim=96, depth=4, heads=4, hidden=256, drop_path=0.0, out_blocks=(1, 2, 3, 4))
    small_mask2former(config)


def shrink_focalnet(config: ConfigDict) -> None:
    """The demo of a FocalNet with UperNet: narrow, shallow, from random weights."""
    shrink_run(config)
    config.model.encoder.update(dim=32, depths=(2, 2, 2, 2), levels=2, window=3, drop_path=0.0)
    config.model.decoder.update(dim=96, auxiliary_dim=32)


def shrink_internimage(config: ConfigDict) -> None:
    """The demo of an InternImage with UperNet: narrow, shallow, from random weights."""
    shrink_run(config)
    config.optimizer.layer_decay = 1.0  # Nothing was trained before.
    config.model.encoder.update(dim=32, depths=(2, 2, 2, 2), group_width=8, reach=1.0, drop_path=0.0)
    config.model.decoder.update(dim=96, auxiliary_dim=32)


def shrink_swin(config: ConfigDict) -> None:
    """The demo of a Swin with UperNet: narrow, shallow, from random weights."""
    shrink_run(config)
    config.model.encoder.update(dim=32, depths=(2, 2, 2, 2), head_dim=16, window=4, drop_path=0.0)
    config.model.decoder.update(dim=96, auxiliary_dim=32)
