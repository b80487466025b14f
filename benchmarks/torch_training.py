"""The demo of configs/upernet.py trained here and in PyTorch: the same first weights, batches and recipe.

    python -m benchmarks.torch_training                                   50 steps: losses side by side, time of a step
    python -m benchmarks.torch_training --steps=500 --seeds=5 --output=runs/torch_training    to its end, mIoU of both

PyTorch's side is transformers' BeitForSemanticSegmentation, torch.optim.AdamW and torch's cross-entropy; it shares the
weights that it begins with, the batches and no other code. Dropout is off, as no two libraries draw alike. Both train
in float32 on the same cores, in turns: a step here, a step there. A second PyTorch model, whose first weights differ by
a ten millionth, tells how far rounding alone drives two runs apart. With --output both are evaluated as any checkpoint
is, by --mode=evaluate with their weights as `init_from`; a seed that is there is not trained again.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import torch
from ml_collections import ConfigDict
from torch.nn import functional as F

from benchmarks import torch_libraries
from benchmarks.ablation import bootstrap
from configs import upernet
from data_prep import generate
from vspw_jax.console.errors import UserError, run_program
from vspw_jax.console.progress import progress
from vspw_jax.data import pipeline
from vspw_jax.files.whole_files import whole_file
from vspw_jax.interop import convert, namings
from vspw_jax.parallel import placement
from vspw_jax.training import checks, optimizers, train_state, train_step

transformers = torch_libraries.load("transformers")

RECIPE = "configs/upernet.py:demo"
SIDES = ("jax", "torch")
NUDGED = "nudged"
"""PyTorch's side once more, from weights that differ by `NUDGE` of themselves."""
NUDGE = 1e-7
IN_MEMORY = (
    "layers.0.attention.q_proj.weight",
    "beit.embeddings.cls_token",
    "decode_head.psp_bottleneck.convolution.weight",
)
"""Names by which the rows know the modules of version 5 of transformers."""
TERMS = ("loss", "pixel", "auxiliary")


def recipe(seed: int) -> ConfigDict:
    """The demo of UperNet without dropout; its learning rate follows the recipe's 500 steps, however many are made."""
    config = upernet.get_config("demo")
    config.seed = seed
    config.model.decoder.dropout = 0.0
    return config.lock()


def name_rows(config: ConfigDict) -> list[Any]:
    """Which tensor of the PyTorch model is which of our arrays."""
    return list(namings.NAMINGS["hugging_face_upernet"].rows(config.model, IN_MEMORY))


def arrays_of(trees: Sequence[Any]) -> dict[str, np.ndarray]:
    """The arrays of some trees by path."""
    arrays: dict[str, np.ndarray] = {}
    for tree in trees:
        placement.map_with_path(lambda path, leaf: arrays.__setitem__(path, np.array(leaf)), tree)
    return arrays


def copied(trees: Sequence[Any]) -> list[Any]:
    """The trees with NumPy arrays of their own: a step takes its state's memory."""
    return [jax.tree.map(np.array, tree) for tree in trees]


class Jax:
    """This codebase's own step, as `vspw_jax.main` makes it."""

    def __init__(self, config: ConfigDict) -> None:
        self._config, self._mesh = config, train_state.mesh_of_run(config)
        graphdef, params, _ = train_state.describe(config)
        optimizer = optimizers.build(config, params)
        self.state = train_state.new_state(config, optimizer, self._mesh)
        self._step = train_step.make_train_step(config, graphdef, optimizer, self._mesh)

    def weights(self) -> list[Any]:
        """Params and model_state."""
        return [self.state["params"], self.state["model_state"]]

    def step(self, batch: dict[str, np.ndarray]) -> dict[str, float]:
        """The losses of a step, by name."""
        placed = placement.to_global(self._mesh, batch)
        self.state, metrics = self._step(self.state, placed, train_step.seed_of(self._config))
        return {name: float(metrics[name]) for name in TERMS}


class Torch:
    """The same in PyTorch."""

    def __init__(self, config: ConfigDict, weights: Sequence[Any]) -> None:
        self._config, self._rows, self.first = config, name_rows(config), weights
        self.model = build(config)
        arrays = arrays_of(weights)
        tensors = {row.theirs: torch.from_numpy(np.array(row.view(arrays[row.ours]))) for row in self._rows}
        left = self.model.load_state_dict(tensors, strict=False)
        assert not left.unexpected_keys and all(key.endswith("num_batches_tracked") for key in left.missing_keys), left
        decayed = {row.theirs for row in self._rows if is_decayed(row.ours)}
        groups: dict[bool, list[torch.nn.Parameter]] = {True: [], False: []}
        for name, parameter in self.model.named_parameters():
            groups[name in decayed].append(parameter)
        options = config.optimizer
        self._optimizer = torch.optim.AdamW(
            [
                {"params": groups[True], "weight_decay": options.weight_decay},
                {"params": groups[False], "weight_decay": 0.0},
            ],
            lr=options.learning_rate,
            betas=(options.beta1, options.beta2),
            eps=1e-8,
        )
        self._count = 0

    def step(self, batch: dict[str, np.ndarray]) -> dict[str, float]:
        """The losses of a step, by name."""
        self.model.train()
        image = torch.from_numpy(batch["image_BTHWC"][:, 0].transpose(0, 3, 1, 2).copy())
        label = torch.from_numpy(batch["label_BTHW"][:, 0].astype(np.int64))
        terms = {
            name: F.cross_entropy(
                F.interpolate(logits, label.shape[1:], mode="bilinear", align_corners=False), label, ignore_index=255
            )
            for name, logits in zip(("pixel", "auxiliary"), forward(self.model, self._config, image), strict=True)
        }
        weights = self._config.loss.segmentation.weights
        terms = {name: weights[name] * term for name, term in terms.items()}
        loss = sum(terms.values())
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate(self._config, self._count)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self._config.optimizer.clip_norm)
        self._optimizer.step()
        self._count += 1
        return {"loss": loss.item(), **{name: term.item() for name, term in terms.items()}}

    def weights(self) -> list[Any]:
        """Its weights in our trees."""
        arrays, tensors = arrays_of(self.first), {name: x.numpy() for name, x in self.model.state_dict().items()}
        for row in self._rows:
            row.view(arrays[row.ours])[...] = tensors[row.theirs]
        return [placement.map_with_path(lambda path, leaf: arrays[path], tree) for tree in self.first]


def is_decayed(path: str) -> bool:
    """Whether weight decay pulls one of our arrays to 0: all but biases, norms and layer scales, as the recipe says."""
    return path.split("/")[-1] not in ("bias", "scale", "q_bias", "v_bias", "gamma", "gamma_1", "gamma_2")


def learning_rate(config: ConfigDict, step: int) -> float:
    """mmcv's poly schedule with a linear warm-up."""
    schedule, rate = config.schedule, config.optimizer.learning_rate
    decayed = (rate - schedule.minimum) * (1 - step / config.train.steps) ** schedule.power + schedule.minimum
    share = min(step / schedule.warmup_steps, 1.0)
    return decayed * (schedule.warmup_ratio * (1 - share) + share)


def build(config: ConfigDict) -> transformers.BeitForSemanticSegmentation:
    """transformers' network of the same sizes."""
    encoder, decoder = config.model.encoder, config.model.decoder
    return transformers.BeitForSemanticSegmentation(
        transformers.BeitConfig(
            hidden_size=encoder.dim,
            num_hidden_layers=encoder.depth,
            num_attention_heads=encoder.heads,
            intermediate_size=4 * encoder.dim,
            image_size=tuple(config.model.image_size),
            patch_size=16,
            use_relative_position_bias=True,
            use_absolute_position_embeddings=False,
            layer_norm_eps=1e-6,
            drop_path_rate=0.0,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            out_indices=[1, 2, 3, 4],
            auxiliary_channels=decoder.auxiliary_dim,
            num_labels=config.model.num_classes,
        )
    )


def forward(model: transformers.BeitForSemanticSegmentation, config: ConfigDict, image: torch.Tensor) -> tuple:
    """Logits of both heads. Its own `forward` takes features one block too early, so its parts are run one by one."""
    states = model.beit(image, output_hidden_states=True).hidden_states
    cells = [side // 16 for side in image.shape[2:]]
    features = [
        states[block][:, 1:].transpose(1, 2).reshape(len(image), -1, *cells)
        for block in config.model.encoder.out_blocks
    ]
    maps = model.fpn(features)
    return model.decode_head(list(maps)), model.auxiliary_head(list(maps))


def train(config: ConfigDict, steps: int) -> tuple[dict[str, Any], dict[str, list[Any]]]:
    """Both sides for so many steps: (losses and seconds of each step by side, their weights)."""
    ours = Jax(config)
    theirs = Torch(config, copied(ours.weights()))
    nudged = Torch(config, [jax.tree.map(lambda leaf: leaf * (1 + NUDGE), tree) for tree in theirs.first])
    sides = {"jax": ours, "torch": theirs, NUDGED: nudged}
    losses: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    batches = pipeline.training_batches(config.data, config.train.batch, config.model.image_size, config.seed)
    bar = progress(description=f"training seed {config.seed}", unit="step", total=steps)
    for step in range(steps):
        batch = next(batches)
        # In turns also in who comes first: the next batch is read meanwhile.
        for side in SIDES[:: 1 if step % 2 else -1]:
            began = time.perf_counter()
            losses[side].append(sides[side].step(batch))
            seconds[side].append(time.perf_counter() - began)
        losses[NUDGED].append(nudged.step(batch))
        bar.update()
    bar.close()
    batches.close()
    weights = {side: sides[side].weights() for side in SIDES}
    return {"losses": losses, "seconds": seconds}, weights


def save(config: ConfigDict, weights: list[Any], path: pathlib.Path) -> None:
    """Writes the weights as any trained network's are."""
    convert.save_weights(config.model, weights, path)


def evaluate(config: ConfigDict, weights: list[Any], workdir: pathlib.Path) -> dict[str, Any]:
    """The scores of weights, as --mode=evaluate gives them of a file."""
    workdir.mkdir(parents=True, exist_ok=True)
    path = workdir / "weights.pth"
    save(config, weights, path)
    command = [sys.executable, "-m", "vspw_jax.main", f"--config={RECIPE}", "--mode=evaluate", f"--workdir={workdir}"]
    subprocess.run([*command, f"--config.init_from={path}", "--config.model.decoder.dropout=0"], check=True)
    return json.loads((workdir / "evaluation.json").read_text())


def report(found: dict[str, Any]) -> str:
    """Losses side by side, how far they are apart, and the times of a step."""
    losses = {side: np.array([[step[name] for name in TERMS] for step in of]) for side, of in found["losses"].items()}
    apart, by_rounding = (np.abs(losses[side] - losses["torch"]).max(axis=1) for side in ("jax", NUDGED))
    steps = len(apart)
    shown = sorted({0, 1, 2, 5, 10, 20, 30, 40, 49, *range(99, steps, 100), steps - 1} & set(range(steps)))
    lines = ["step    JAX's loss   PyTorch's   apart: JAX   nudged, largest of the terms"]
    lines += [
        f"{step + 1:<6d}{losses['jax'][step, 0]:12.5f}{losses['torch'][step, 0]:12.5f}"
        f"{apart[step]:13.2e}{by_rounding[step]:9.1e}"
        for step in shown
    ]
    most = [values[: min(50, steps)].max() for values in (apart, by_rounding)]
    jax_s, torch_s = (float(np.median(found["seconds"][side][1:] or [np.nan])) for side in SIDES)
    lines.append(
        f"Largest difference in the first {min(50, steps)} steps: {most[0]:.2e}, by rounding alone {most[1]:.2e}"
    )
    lines.append(
        f"Time of a step by the clock, median: JAX {jax_s:.3f} s, PyTorch {torch_s:.3f} s: {jax_s / torch_s:.2f}"
    )
    return "\n".join(lines)


def run_seed(seed: int, steps: int, output: pathlib.Path | None) -> dict[str, Any]:
    """What a seed gave, made now or found in `output`."""
    config = recipe(seed)
    path = output and output / f"seed_{seed}.json"
    if path and path.exists():
        found = json.loads(path.read_text())
        if found["steps"] != steps:
            raise UserError(f"{path} is of {found['steps']} steps, not {steps}. Choose another --output=DIR.")
        return found
    found, weights = train(config, steps)
    found["steps"] = steps
    if path and output:
        found["scores"] = {side: evaluate(config, weights[side], output / f"seed_{seed}" / side) for side in SIDES}
        with whole_file(path) as partial:
            partial.write_text(json.dumps(found) + "\n")
    return found


def scores(found: Sequence[dict[str, Any]]) -> str:
    """mIoU of both sides, by seed."""
    lines = ["seed    JAX mIoU   PyTorch's"]
    for seed, of_seed in enumerate(found):
        ours, theirs = (100 * of_seed["scores"][side]["mIoU"] for side in SIDES)
        lines.append(f"{seed:<6d}{ours:10.2f}{theirs:12.2f}")
    for side in SIDES:
        miou_S = np.array([100 * of_seed["scores"][side]["mIoU"] for of_seed in found])
        reach = bootstrap.over_seeds(miou_S)
        between = f", 95 % over seeds {reach[0]:.2f} to {reach[1]:.2f}" if reach else ""
        lines.append(f"{side}: {miou_S.mean():.2f}{between}")
    return "\n".join(lines)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(
        prog="python -m benchmarks.torch_training",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    result.add_argument("--steps", type=int, default=50, metavar="N", help="steps of each, 1 to 500 (default 50)")
    result.add_argument("--seeds", type=int, default=1, metavar="N", help="seeds 0 to N-1 (default 1)")
    result.add_argument("--output", type=pathlib.Path, metavar="DIR", help="evaluate both there; default: losses alone")
    return result


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    options = parser().parse_args(arguments)
    most = recipe(0).train.steps
    if not 1 <= options.steps <= most or options.seeds < 1:
        raise UserError(f"--steps={options.steps} --seeds={options.seeds}: expected 1 to {most}, and 1 or more.")
    if options.output:
        options.output.mkdir(parents=True, exist_ok=True)
    generate.for_recipe(recipe(0))
    checks.check(recipe(0))
    found = []
    for seed in range(options.seeds):
        found.append(run_seed(seed, options.steps, options.output))
        print(f"\nSeed {seed}\n{report(found[-1])}", flush=True)
    if options.output:
        print(f"\n{scores(found)}")


if __name__ == "__main__":
    run_program(main)
