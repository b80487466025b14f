"""The count of floating point operations against counts by hand, and the memory of compiled steps."""

import contextlib
import re

import jax
import jax.numpy as jnp
import pytest

from benchmarks.tpu_cost import __main__ as tpu_cost
from configs import deeplabv3
from vspw_jax.inspection import report, step_cost
from vspw_jax.inspection.step_cost import matrix_flops
from vspw_jax.models import attention_kernel, convolution
from vspw_jax.parallel.mesh import make_mesh


def flops(function, *shapes):
    return matrix_flops(jax.make_jaxpr(function)(*(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)).jaxpr)


def test_matrix_product_with_batch_axes():
    assert flops(lambda x, y: jnp.einsum("bij,bjk->bik", x, y), (5, 2, 3), (5, 3, 4)) == 2 * 5 * 2 * 3 * 4


def test_grouped_convolution():
    def convolve(x, kernel):
        return jax.lax.conv_general_dilated(
            x, kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=2
        )

    assert flops(convolve, (1, 8, 6, 4), (3, 3, 2, 10)) == 2 * (4 * 3) * 10 * (3 * 3 * 2)


def test_a_scan_counts_its_length_and_recomputation_counts():
    layer = lambda x, w: (jnp.sin(x @ w), None)

    def loss(x, w, apply):
        return jax.lax.scan(apply, x, w)[0].sum()

    forward = 7 * 2 * 3 * 4 * 4
    assert flops(lambda x, w: loss(x, w, layer), (3, 4), (7, 4, 4)) == forward
    gradient = lambda apply: jax.grad(lambda x, w: loss(x, w, apply), (0, 1))
    assert flops(gradient(layer), (3, 4), (7, 4, 4)) == 3 * forward
    assert flops(gradient(jax.checkpoint(layer)), (3, 4), (7, 4, 4)) == 4 * forward


def test_attention_by_cudnn_counts_its_products(monkeypatch):
    """Two of the forward pass and four of the backward pass: logits made again there do not count."""
    monkeypatch.setattr("jax._src.cudnn.fused_attention_stablehlo.check_cudnn_version", lambda: 91500)
    heads = jax.ShapeDtypeStruct((5, 6, 2, 8), jnp.bfloat16)
    attend = lambda *x: jax.nn.dot_product_attention(*x, implementation="cudnn").astype(jnp.float32).sum()
    forward = 2 * (2 * 5 * 2 * 6 * 6 * 8)
    assert matrix_flops(jax.make_jaxpr(attend)(*[heads] * 3).jaxpr) == forward
    assert matrix_flops(jax.make_jaxpr(jax.grad(attend, (0, 1, 2)))(*[heads] * 3).jaxpr) == 3 * forward


def test_attention_by_a_kernel_counts_its_products():
    """As cuDNN's, padding included."""
    query, key = (jax.ShapeDtypeStruct((6, count, 2, 64), jnp.float32) for count in (15, 16))
    biases = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((2, 9, 3, 3), (2,))]
    attend = lambda *x: attention_kernel.attend(*x, interpret=True).sum()
    grid = attention_kernel.Grid(5, 3, 2, 64)
    keys, queries = (grid.patch_tiles + 1) * 128, grid.steps * grid.step_queries
    forward = 2 * (2 * 6 * queries * keys * 128)
    assert matrix_flops(jax.make_jaxpr(attend)(query, key, key, *biases).jaxpr) == forward
    assert matrix_flops(jax.make_jaxpr(jax.grad(attend))(query, key, key, *biases).jaxpr) == 3 * forward


def test_products_with_padding_count(monkeypatch):
    """On CPU some are left out: a step is counted as other devices run it."""
    config = deeplabv3.get_config("demo")
    counted = step_cost.step_flops(config)
    monkeypatch.setattr(convolution, "with_padding", contextlib.nullcontext)
    assert step_cost.step_flops(config) < counted
    for limit in ("REACHES_OUT", "REACHES_OUT_OF_WIDE"):
        monkeypatch.setattr(convolution, limit, 0.0)
    assert step_cost.step_flops(config) == counted


@pytest.mark.parametrize(("batch", "devices"), [(8, 8), (3, 1)])
def test_memory_of_the_step_is_told_for_each_device_and_remat(tiny_config, monkeypatch, batch, devices):
    """In place of the network's a step that sorts each clip's values, 24 KiB, and without remat again."""

    def step_of(config, mesh):
        names = mesh.axis_names[0]

        def sorted_sum(image_BTHWC):
            values = image_BTHWC.reshape(len(image_BTHWC), -1)
            ascending = jnp.sort(values)
            again = jnp.sort(jnp.sin(values)) if config.model.remat == "none" else 0.0
            return jax.lax.psum((ascending * again)[:, ::3].sum(), names)

        mapped = jax.shard_map(sorted_sum, mesh=mesh, in_specs=jax.P(names), out_specs=jax.P(), check_vma=False)
        step = jax.jit(lambda state, batch, seed: state + mapped(batch["image_BTHWC"]))
        return step, (jax.ShapeDtypeStruct((), jnp.float32), step_cost.abstract_batch(config), 0)

    monkeypatch.setattr(step_cost, "abstract_step", step_of)
    tiny_config.train.batch = batch
    tiny_config.loss.nce.scope = "clip"
    tiny_config.model.remat = "dots"
    lines = report.describe_memory(tiny_config)
    assert f"{devices} x cpu, {batch // devices} clips each" in lines[0]
    assert [line.split(" with ")[1] for line in lines[1:]] == [
        "model.remat=dots (this recipe)",
        "model.remat=full",
        "model.remat=none",
    ]
    mesh = make_mesh(devices=jax.devices()[:devices])
    of = {remat: step_cost.step_memory(tiny_config, mesh, remat) for remat in ("full", "none")}
    assert of["none"] > of["full"] >= batch // devices * 24 * 2**10
    assert tiny_config.model.remat == "dots"
    tiny_config.model.remat = "auto"
    *lines, last = report.describe_memory(tiny_config)[1:]
    assert [line.split(" with ")[1] for line in lines] == [f"model.remat={name}" for name in ("none", "dots", "full")]
    assert "model.remat=auto takes the first" in last


def test_inspecting_the_recipe_needs_neither_data_nor_workdir(command_line, tiny_flags, tmp_path):
    arguments = [f"--config.data.records={tmp_path / 'none'}", f"--workdir={tmp_path / 'run'}", "--mode=inspect"]
    status, output, errors = command_line(*tiny_flags, *arguments)
    assert status == 0, errors
    for part in ("num_queries: 10", "decoder/cls_embed/kernel", "Parameters: ", "TFLOP"):
        assert part in output
    assert "GiB with model.remat" not in output
    (command,) = re.findall(r"python -m benchmarks\.tpu_cost (.*) \(docs/devices\.md\)", output)
    options = tpu_cost.parser().parse_args(command.split())
    assert (options.recipe, options.size, options.crop, options.frames) == ("nce", "demo", 32, 2)
    assert list(tmp_path.iterdir()) == []


def test_a_recipe_that_the_tpu_cost_does_not_know_is_not_named(tiny_config, request, tmp_path):
    configs = request.config.rootpath / "configs"
    assert "--recipe=upernet --crop" in report.on_a_tpu(tiny_config, str(configs / "upernet.py"))
    assert not report.on_a_tpu(tiny_config, str(tmp_path / "configs" / "upernet.py:demo"))
    assert not report.on_a_tpu(tiny_config, str(configs / "released.py"))  # Its network is a file's.


def test_the_full_recipe_has_the_released_parameters(command_line, request, tmp_path):
    """Crop 896 and ADE20K's classes: 570.74 M, as the released network; nothing of it is allocated."""
    arguments = ["--config.model.image_size=(896, 896)", "--config.model.num_classes=150", "--mode=inspect"]
    arguments.append("--config.run.compile_to_inspect=False")
    recipe = request.config.rootpath / "configs" / "nce.py"
    status, output, errors = command_line(f"--config={recipe}", *arguments, f"--workdir={tmp_path / 'run'}")
    assert status == 0, errors
    assert "Parameters: 570,744,407 (570.74 M)" in output
