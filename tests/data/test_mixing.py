"""Mixing of two batches against equations 5 to 7 of paper 003, written out in float64 NumPy."""

import jax
import numpy as np
import pytest
from scipy import integrate, stats

from vspw_jax.console.errors import UserError
from vspw_jax.data import mixing

B, T, H, W = 3, 2, 8, 12
JITTED = {mix: jax.jit(mix) for mix in (mixing.cutmix, mixing.mixup)}


def cutmix(batch, partner, key, alpha=1.0):
    """Compiled once for all tests."""
    return JITTED[mixing.cutmix](batch, partner, key, alpha)


def mixup(batch, partner, key, alpha=1.0):
    """Compiled once for all tests."""
    return JITTED[mixing.mixup](batch, partner, key, alpha)


def batch_of(seed, void_share=0.2):
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 124, (B, T, H, W)).astype(np.int32)
    label[rng.random(label.shape) < void_share] = 255
    image = rng.normal(size=(B, T, H, W, 3)).astype(np.float32)
    return {"image_BTHWC": image, "label_BTHW": label, "name": np.arange(B) + seed}


def pixel_loss(label, embedding, prototypes):
    """A loss of each pixel in the manner of equation 4; NaN where the label is void, to show that it is not read."""
    scores = embedding @ prototypes.T
    logs = np.log(np.exp(scores).sum(-1)) - np.take_along_axis(scores, np.minimum(label, 123)[..., None], -1)[..., 0]
    return np.where(label == 255, np.nan, logs)


@pytest.fixture(scope="module")
def losses():
    """Per-pixel losses of a label map, by float64 embeddings and prototypes that stay the same."""
    rng = np.random.default_rng(9)
    embedding, prototypes = rng.normal(size=(B, T, H, W, 4)), rng.normal(size=(124, 4))
    return lambda label: pixel_loss(np.asarray(label), embedding, prototypes)


@pytest.mark.parametrize("seed", range(4))
def test_cutmix_is_equation_5(seed):
    batch, partner = batch_of(1), batch_of(2)
    mixed = cutmix(batch, partner, jax.random.key(seed))
    mask = np.asarray(mixed["weight_BTHW"]).astype(np.float64)
    assert set(np.unique(mask)) <= {0.0, 1.0}
    image = mask[..., None] * batch["image_BTHWC"] + (1 - mask[..., None]) * partner["image_BTHWC"]
    label = mask * batch["label_BTHW"] + (1 - mask) * partner["label_BTHW"]
    np.testing.assert_array_equal(mixed["image_BTHWC"], image.astype(np.float32))
    np.testing.assert_array_equal(mixing.region_label(mixed), label)
    np.testing.assert_array_equal(mixed["label_BTHW"], batch["label_BTHW"])
    np.testing.assert_array_equal(mixed["other_label_BTHW"], partner["label_BTHW"])


def test_a_region_is_one_box_and_the_same_in_all_frames():
    masks = np.concatenate([cutmix(batch_of(1), batch_of(2), jax.random.key(seed))["weight_BTHW"] for seed in range(8)])
    np.testing.assert_array_equal(masks[:, 0], masks[:, 1])
    for hole in masks[:, 0] == 0:
        np.testing.assert_array_equal(hole, hole.any(1)[:, None] & hole.any(0)[None])
        for edge in (hole.any(1), hole.any(0)):
            assert (np.diff(np.r_[0, edge, 0]) == 1).sum() <= 1
    assert len({mask.tobytes() for mask in masks[:, 0]}) > 12


def test_regions_cover_each_pixel_as_often_as_cutmix_does():
    """Over the share's law, the chance of a row times that of a column, by counting centres."""

    def chance(place, length, side):
        half = int(length * side) // 2
        return sum(centre - half <= place < centre + half for centre in range(length)) / length

    batch, keys = batch_of(1), jax.random.split(jax.random.key(0), 800)
    drawn = 1 - np.concatenate([cutmix(batch, batch, key)["weight_BTHW"][:, 0] for key in keys]).mean(0)
    for row, column in ((0, 0), (3, 5), (7, 2)):
        shares = np.linspace(0, 1, 1001)
        chances = [chance(row, H, np.sqrt(1 - s)) * chance(column, W, np.sqrt(1 - s)) for s in shares]
        assert abs(drawn[row, column] - integrate.trapezoid(chances, shares)) < 4 * 0.5 / np.sqrt(B * len(keys))


def test_mixup_is_equation_6():
    batch, partner = batch_of(3), batch_of(4)
    mixed = mixup(batch, partner, jax.random.key(0))
    weight = np.asarray(mixed["weight_BTHW"]).astype(np.float64)
    assert ((weight > 0) & (weight < 1)).all() and len(np.unique(weight)) == B
    assert (weight == weight[:, :1, :1, :1]).all()
    image = weight[..., None] * batch["image_BTHWC"] + (1 - weight[..., None]) * partner["image_BTHWC"]
    np.testing.assert_allclose(mixed["image_BTHWC"], image, atol=1e-6)
    np.testing.assert_array_equal(mixed["label_BTHW"], batch["label_BTHW"])
    np.testing.assert_array_equal(mixed["other_label_BTHW"], partner["label_BTHW"])


def test_shares_are_beta_distributed():
    batch, keys = batch_of(1), jax.random.split(jax.random.key(1), 400)
    for alpha in (1.0, 0.4):
        shares = np.concatenate([mixup(batch, batch, key, alpha)["weight_BTHW"][:, 0, 0, 0] for key in keys])
        assert stats.kstest(shares, stats.beta(alpha, alpha).cdf).pvalue > 0.01


def test_loss_of_mixed_pixels_is_equation_7(losses):
    """Where both labels are known throughout, clip by clip: share * loss(label) + (1 - share) * loss(other label)."""
    batch, partner = batch_of(5, void_share=0), batch_of(6, void_share=0)
    mixed = mixup(batch, partner, jax.random.key(2))
    share = np.asarray(mixed["weight_BTHW"], np.float64)[:, 0, 0, 0]
    own, other = (losses(b["label_BTHW"]).mean(axis=(1, 2, 3)) for b in (batch, partner))
    expected = (share * own + (1 - share) * other).mean()
    found = mixing.weighted_mean(mixed, losses(batch["label_BTHW"]), losses(partner["label_BTHW"]))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_loss_of_regions_is_that_of_equation_5s_label(losses):
    batch, partner = batch_of(5), batch_of(6)
    mixed = cutmix(batch, partner, jax.random.key(3))
    expected = np.nanmean(losses(mixing.region_label(mixed)))
    found = mixing.weighted_mean(mixed, losses(batch["label_BTHW"]), losses(partner["label_BTHW"]))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("mix", [cutmix, mixup])
def test_void_takes_its_label_alone_out_of_the_loss(mix, losses):
    batch, partner = batch_of(7), batch_of(8)
    mixed = mix(batch, partner, jax.random.key(4))
    weight = np.asarray(mixed["weight_BTHW"], np.float64)
    sums = np.zeros(2)
    for share, label in ((weight, batch["label_BTHW"]), (1 - weight, partner["label_BTHW"])):
        known = label != 255
        sums += (share[known] * losses(label)[known]).sum(), share[known].sum()
    found = mixing.weighted_mean(mixed, losses(batch["label_BTHW"]), losses(partner["label_BTHW"]))
    np.testing.assert_allclose(found, sums[0] / sums[1], rtol=1e-5)


def test_nothing_labelled_is_a_loss_of_zero(losses):
    void = batch_of(7, void_share=1.0)
    mixed = mixup(void, void, jax.random.key(5))
    assert mixing.weighted_mean(mixed, losses(void["label_BTHW"]), losses(void["label_BTHW"])) == 0


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_share_of_0_or_1_shows_one_of_the_two_alone(share, losses, monkeypatch):
    """Nor does the other's label count where that of what is shown is void."""
    monkeypatch.setattr(jax.random, "beta", lambda key, a, b, shape: np.full(shape, share, np.float32))

    def mixed_and_loss(batch, partner):
        mixed = mixing.mixup(batch, partner, jax.random.key(7))
        of_both = (losses(x["label_BTHW"]) for x in (batch, partner))
        return mixed, mixing.weighted_mean(mixed, *of_both)

    batch, partner, void = batch_of(1), batch_of(2), batch_of(3, void_share=1.0)
    shown = batch if share else partner
    mixed, loss = mixed_and_loss(batch, partner)
    np.testing.assert_array_equal(mixed["weight_BTHW"], share)
    np.testing.assert_array_equal(mixed["image_BTHWC"], shown["image_BTHWC"])
    np.testing.assert_array_equal(mixing.region_label(mixed), shown["label_BTHW"])
    np.testing.assert_allclose(loss, np.nanmean(losses(shown["label_BTHW"])), rtol=1e-5)
    assert mixed_and_loss(*((void, partner) if share else (batch, void)))[1] == 0


def test_a_share_of_1_leaves_no_box_and_one_of_0_a_box_of_the_frames_size(monkeypatch):
    """What of it exceeds the frame is cut off, as its centre may be anywhere."""

    def boxes(share):
        monkeypatch.setattr(jax.random, "beta", lambda key, a, b, shape: np.full(shape, share, np.float32))
        return mixing.cutmix(batch_of(1), batch_of(2), jax.random.key(8))["weight_BTHW"][:, 0] == 0

    assert not boxes(1.0).any()
    for inside in np.asarray(boxes(0.0)):
        rows, columns = inside.any(axis=1).sum(), inside.any(axis=0).sum()
        assert rows >= H // 2 and columns >= W // 2 and inside.sum() == rows * columns


def test_one_key_gives_one_batch_and_other_fields_stay():
    batch = batch_of(1)
    one, again = (cutmix(batch, batch_of(2), jax.random.key(6)) for _ in range(2))
    for name, value in one.items():
        np.testing.assert_array_equal(value, again[name])
    np.testing.assert_array_equal(one["name"], batch["name"])


def test_partner_of_another_shape_is_named():
    partner = {name: batch_of(2)[name][:, :1] for name in ("image_BTHWC", "label_BTHW")}
    with pytest.raises(UserError, match="same shapes: image_BTHWC has"):
        mixing.cutmix(batch_of(1), partner, jax.random.key(0))
