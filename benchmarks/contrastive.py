"""The cross-frame contrastive loss: time and memory of its plain form, of strips of anchors, and of PyTorch.

    python -m benchmarks.contrastive [--patches 450 1800 6272 12544 50176] [--dim=256] [--rounds=5] [--threads=2]

A call is value and gradient by the features. 6272 patches are 2 frames of crop 896 at 1/16, 50,176 are 4 frames at 1/8.
PyTorch's form (where torch is installed) is the same equation over (M, M) matrices. Values and gradients are
compared first, then they take turns; medians are printed. "Temporary" is what XLA allots to the compiled call beside
arguments and results, "resident" what a process of its own gains in its first call at the peak, gradient included.
A plain form that would need more than 8 GiB is left out, and its row says so. Freed memory is kept while times are
taken (see measure.ALLOCATOR).
"""

import argparse
import functools
import json
import os
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import measure
from vspw_jax.console.errors import UserError, run_program
from vspw_jax.losses import cross_frame_nce

TEMPERATURE, TOLERANCE = 0.1, 1e-5
MOST_BYTES = 8 * 2**30
TORCH_BYTES = 32
"""PyTorch's peak a pair of patches, as measured at 1800 and 6272."""
LARGE = 20_000
"""From so many patches on one round has to do."""


def drawn_problem(patches, dim):
    """Unit features that lean towards their class, and 40 classes in runs with some void."""
    rng = np.random.default_rng(0)
    labels = np.repeat(rng.integers(0, 40, -(-patches // 50)), 50)[:patches].astype(np.int32)
    features = rng.normal(size=(40, dim))[labels] + 2 * rng.normal(size=(patches, dim))
    labels[rng.uniform(size=patches) < 0.05] = 255
    return (features / np.linalg.norm(features, axis=1, keepdims=True)).astype(np.float32), labels


class Jax:
    """One of our forms: call() gives value and gradient, computed."""

    def __init__(self, block, features, labels):
        loss = functools.partial(cross_frame_nce.group_loss, temperature=TEMPERATURE, block=block)
        self.arguments = jnp.asarray(features), jnp.asarray(labels)
        self.compiled = jax.jit(jax.value_and_grad(loss)).lower(*self.arguments).compile()
        self.needs = self.compiled.memory_analysis().temp_size_in_bytes
        self.temporary = f"{self.needs / 2**20:.0f}"

    def call(self):
        return jax.block_until_ready(self.compiled(*self.arguments))


class Torch:
    """The peer: equation 1 with matrices of all pairs, differentiated by autograd."""

    temporary = ""

    def __init__(self, features, labels):
        import torch

        self.torch, self.features, self.labels = torch, torch.from_numpy(features), torch.from_numpy(labels)
        self.needs = TORCH_BYTES * len(labels) ** 2

    def call(self):
        torch, labels = self.torch, self.labels
        features = self.features.clone().requires_grad_()
        same, known = labels[:, None] == labels, labels != 255
        both_known = known[:, None] & known
        positive = same & both_known & ~torch.eye(len(labels), dtype=torch.bool)
        similarity = features @ features.T / TEMPERATURE
        counted = torch.where(~same & both_known, similarity, -1e30)
        terms = torch.nn.functional.softplus(torch.logsumexp(counted, dim=1, keepdim=True) - similarity)
        count = positive.sum(dim=1)
        anchors = torch.where(positive, terms, 0.0).sum(dim=1) / count.clamp(min=1)
        loss = anchors.sum() / (count > 0).sum().clamp(min=1)
        loss.backward()
        return loss.item(), features.grad.numpy()


FORMS = {
    "ours": functools.partial(Jax, "auto"),
    "plain": functools.partial(Jax, None),
    "PyTorch": Torch,
}


def made_forms(patches, dim):
    """Forms by name, or why one is left out."""
    forms = {}
    for name, make in FORMS.items():
        try:
            form = make(*drawn_problem(patches, dim))
            forms[name] = form if form.needs <= MOST_BYTES else f"left out: would need {form.needs / 2**30:.0f} GiB"
        except ImportError:
            forms[name] = "left out: not installed"
    return forms


def check_equal(forms):
    """Raises UserError where two forms differ by more than the tolerance, relative to the largest entry."""
    if len(forms) < 2:
        return
    (value, gradient), *others = (form.call() for form in forms)
    for other, other_gradient in others:
        error = max(
            abs(float(other) / float(value) - 1),
            float(np.abs(np.asarray(gradient) - np.asarray(other_gradient)).max() / np.abs(np.asarray(gradient)).max()),
        )
        if not error < TOLERANCE:
            raise UserError(f"The forms differ: relative error {error:.1e}, tolerance {TOLERANCE}.")


def measured(flags, patches, *arguments, environment=None):
    """The JSON that this benchmark prints in a process of its own, which gives its memory back when it ends."""
    command = [sys.executable, "-m", "benchmarks.contrastive", f"--dim={flags.dim}", f"--threads={flags.threads}"]
    command += [f"--rounds={flags.rounds}", "--patches", str(patches), *arguments]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def times(flags, patches):
    """{form: [seconds, MiB temporary] or why it is left out}."""
    forms = made_forms(patches, flags.dim)
    there = {name: form for name, form in forms.items() if not isinstance(form, str)}
    check_equal(there.values())
    rounds = flags.rounds if patches < LARGE else 1
    seconds = measure.take_turns([form.call for form in there.values()], rounds, time.perf_counter)
    return forms | {name: [value, there[name].temporary] for name, value in zip(there, seconds, strict=True)}


def resident(flags, patches):
    """MiB that the process gains in one call of a form."""
    make = FORMS[flags.memory_of]
    make(*drawn_problem(64, flags.dim)).call()  # Thread pools and libraries are there before the count begins.
    return measure.gained_memory(make(*drawn_problem(patches, flags.dim)).call)


def print_rows(flags, patches):
    """Measures all forms at one number of patches."""
    rows = measured(flags, patches, "--times")
    for name, row in rows.items():
        if isinstance(row, str):
            print(f"{patches:>7}  {name:<8} {row}")
            continue
        gained = measured(flags, patches, f"--memory-of={name}", environment=measure.plain_environment())
        share = "" if name == "ours" else f"{rows['ours'][0] / row[0]:.2f} of its time"
        print(f"{patches:>7}  {name:<8} {row[0]:8.3f} {row[1]:>9} {gained:>9.0f}  {share}".rstrip(), flush=True)


def parser():
    """The command line."""
    result = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("--patches", type=int, nargs="+", default=[450, 1800, 6272, 12544, 50176])
    result.add_argument("--dim", type=int, default=256)
    result.add_argument("--rounds", type=int, default=5)
    result.add_argument("--threads", type=int, default=os.cpu_count())
    result.add_argument("--memory-of", choices=FORMS, help=argparse.SUPPRESS)
    result.add_argument("--times", action="store_true", help=argparse.SUPPRESS)
    return result


def main():
    flags = parser().parse_args()
    if not flags.memory_of:
        measure.keep_freed_memory("benchmarks.contrastive")
    measure.keep_to_cores(flags.threads)
    os.environ["OMP_NUM_THREADS"] = str(flags.threads)
    if flags.memory_of or flags.times:
        print(json.dumps((resident if flags.memory_of else times)(flags, flags.patches[0])))
        return
    print(f"dim {flags.dim}, {flags.threads} threads, {flags.rounds} rounds; seconds, MiB temporary, MiB resident")
    print(f"{'patches':>7}  {'form':<8} {'seconds':>8} {'temporary':>9} {'resident':>9}  ours takes")
    for patches in flags.patches:
        print_rows(flags, patches)


if __name__ == "__main__":
    run_program(main)
