"""Dicts of tensors as trainers keep them: under other keys, with prefixes, averages beside them."""

import numpy as np

NAMES = ("backbone.cls_token", "backbone.blocks.0.attn.qkv.weight", "decode_head.conv_seg.weight")


def weights(number=0):
    """A network in mmsegmentation's names; all of its tensors hold the number."""
    return {name: np.full(2, number, np.float32) for name in NAMES}


def prefixed(prefix, tensors):
    """The tensors with a prefix before every name."""
    return {f"{prefix}{name}": tensor for name, tensor in tensors.items()}


def mixed(prefixes, tensors):
    """The tensors with the prefixes in turn."""
    return {
        f"{prefixes[number % len(prefixes)]}{name}": tensor for number, (name, tensor) in enumerate(tensors.items())
    }


TRAINED, AVERAGE = weights(1), weights(2)
OPTIMIZER = {"param_groups": {"lr": 0.1}, "exp_avg": {"a": np.zeros(2, np.float32)}}
RANDOM = {"rng": np.zeros(2, np.float32)}

KEPT = {
    "at the top": (TRAINED, None),
    "state_dict": ({"state_dict": TRAINED, "epoch": 3}, "state_dict"),
    "net": ({"net": TRAINED, "acc": 0.5}, "net"),
    "a key that nobody knows": ({"my_weights": TRAINED, "epoch": 3}, "my_weights"),
    "student": ({"student": TRAINED, "teacher": AVERAGE}, "student"),
    "beside an average": ({"state_dict_ema": AVERAGE, "state_dict": TRAINED, "optimizer": OPTIMIZER}, "state_dict"),
    "beside two averages": ({"ema": AVERAGE, "model_ema": AVERAGE, "model": TRAINED}, "model"),
    "two keys": ({"model": AVERAGE, "state_dict": TRAINED}, "state_dict"),
    "ema alone": ({"ema": TRAINED, "updates": 3}, "ema"),
    "state_dict_ema alone": ({"state_dict_ema": TRAINED}, "state_dict_ema"),
    "nested twice": ({"model": {"state_dict": TRAINED, "config": {"a": 1}}}, "model.state_dict"),
    "nested three times": ({"checkpoint": {"model": {"state_dict": TRAINED}}}, "checkpoint.model.state_dict"),
    "beside a random state": ({"state_dict": TRAINED} | RANDOM, "state_dict"),
    "distributed": ({"state_dict": prefixed("module.", TRAINED)}, "state_dict"),
    "compiled": ({"model": prefixed("_orig_mod.", TRAINED)}, "model"),
    "compiled, distributed": ({"model": prefixed("_orig_mod.module.", TRAINED)}, "model"),
    "distributed, compiled": ({"model": prefixed("module._orig_mod.", TRAINED)}, "model"),
    "compiled inside": (
        {"model": {name.replace("backbone.", "backbone._orig_mod."): x for name, x in TRAINED.items()}},
        "model",
    ),
    "Lightning's": ({"state_dict": prefixed("model.", TRAINED), "global_step": 3}, "state_dict.model"),
    "Lightning's Fabric's": ({"model": prefixed("_forward_module.", TRAINED)}, "model"),
    "Lightning's and compiled": ({"state_dict": prefixed("net._orig_mod.", TRAINED)}, "state_dict.net"),
    "a trainer's of any name": (
        {"state_dict": prefixed("my_segmenter.inner.", TRAINED)}, "state_dict.my_segmenter.inner"
    ),
    "prefixes mixed": (
        {"state_dict": mixed(("module.", "", "_orig_mod.module.", "model.", "module.model."), TRAINED | {
            "backbone.b": np.full(2, 1, np.float32), "decode_head.c": np.full(2, 1, np.float32)})},
        "state_dict",
    ),
    "student and teacher by prefix": (
        {"state_dict": prefixed("teacher.", AVERAGE) | prefixed("student.", TRAINED)}, "state_dict.student"
    ),
    "an average by prefix": ({"state_dict": prefixed("ema_model.", AVERAGE) | TRAINED}, "state_dict"),
    "teacher of another kind of trainer": (
        {"state_dict": prefixed("module.model_ema.", AVERAGE) | prefixed("module.model.", TRAINED)}, "state_dict.model"
    ),
}  # fmt: skip
"""By what it is: the content, and the label of the network that was trained and is taken. Its tensors hold 1."""
