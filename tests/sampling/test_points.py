"""Maps at points, by gathers and by the kernels for TPUs, against loops over points in float64."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vspw_jax.sampling import points

MAPS, HEIGHT, WIDTH = 9, 7, 19  # One map more than a step of the kernels has.
POINTS = 910  # More than one product of the kernels has.


def cells_around(point):
    """(row, column, share) of the four cells around a point, on the map or off it, row by row."""
    x, y = point[0] * WIDTH - 0.5, point[1] * HEIGHT - 0.5
    rows, columns = ((int(np.floor(place)), int(np.floor(place)) + 1) for place in (y, x))
    for row, column in itertools.product(rows, columns):
        yield row, column, (1 - abs(y - row)) * (1 - abs(x - column))


def is_inside(row, column):
    return 0 <= row < HEIGHT and 0 <= column < WIDTH


def sampled(maps, places):
    result = np.zeros(places.shape[:2])
    for m, p in np.ndindex(result.shape):
        for row, column, share in cells_around(places[m, p]):
            if is_inside(row, column):
                result[m, p] += share * maps[m, row, column]
    return result


def drawn(low=-0.2, high=1.2, seed=0):
    """Maps, and points of each: the first lie on centres of cells and on lines between them."""
    rng = np.random.default_rng(seed)
    maps = rng.normal(size=(MAPS, HEIGHT, WIDTH)).astype(np.float32)
    places = rng.uniform(low, high, (MAPS, POINTS, 2)).astype(np.float32)
    places[:, :40] = (np.floor(places[:, :40] * (WIDTH, HEIGHT)) + 0.5) / (WIDTH, HEIGHT)
    places[:, :2] = [(0, 0), (1, 1)]
    return maps, places


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-0.2, 1.2), (-9, 10)], ids=["inside", "around", "far"])
def test_samples_are_sums_over_the_four_cells(low, high, platform):
    maps, places = drawn(low, high)
    np.testing.assert_allclose(points.sample(maps, places), sampled(maps, places), atol=1e-5)


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-0.2, 1.2), (-9, 10)], ids=["inside", "around", "far"])
def test_samples_for_an_order_are_off_by_less_than_their_bound(low, high, platform):
    maps, places = drawn(low, high)
    maps[0] *= 1e6
    at_first = np.broadcast_to(places[0], places.shape)
    near = points.sample(maps, places, exact=False), points.sample_all(jnp.asarray(maps), places[0])
    for found, at in zip(near, (places, at_first), strict=True):
        # A place in float32 is off by 1e-6 cells.
        allowed = 3 * 2**-16 * sampled(np.abs(maps), at) + 5e-6 * np.abs(maps).max(axis=(1, 2))[:, None]
        assert (np.abs(found - sampled(maps, at)) <= allowed).all()


def test_samples_for_an_order_are_the_exact_ones_on_other_devices_than_tpus():
    maps, places = drawn()
    np.testing.assert_array_equal(points.sample(maps, places, exact=False), points.sample(maps, places))
    at_first = points.sample_all(jnp.asarray(maps), places[0])
    np.testing.assert_allclose(at_first, sampled(maps, np.broadcast_to(places[0], places.shape)), atol=1e-5)


def test_no_gradient_passes_through_samples_for_an_order(platform):
    maps, places = (x[:, :3] if x.ndim == 3 else x for x in drawn())
    of_sum = lambda maps: (
        points.sample(maps, places, exact=False).sum() + points.sample_all(maps, places[0]).sum() + maps[0, 0, 0]
    )
    to_maps = jax.grad(of_sum)(jnp.asarray(maps))
    np.testing.assert_array_equal(to_maps, np.zeros(maps.shape) + (np.indices(maps.shape) == 0).all(axis=0))


def test_the_gradient_goes_to_the_four_cells_and_not_to_points(platform):
    maps, places = drawn()
    direction = np.random.default_rng(1).normal(size=(MAPS, POINTS)).astype(np.float32)
    of_sum = jax.grad(lambda *inputs: (points.sample(*inputs) * direction).sum(), argnums=(0, 1))
    to_maps, to_places = of_sum(maps, places)
    wanted = np.zeros(maps.shape)
    for m, p in np.ndindex(direction.shape):
        for row, column, share in cells_around(places[m, p]):
            if is_inside(row, column):
                wanted[m, row, column] += share * direction[m, p]
    np.testing.assert_allclose(to_maps, wanted, atol=2e-5)
    np.testing.assert_array_equal(to_places, 0)


@pytest.mark.parametrize("most", [256, 400])
def test_integers_at_the_corners_are_exact_and_beyond_the_map_those_of_its_edge(most, platform):
    rng = np.random.default_rng(2)
    labels = rng.integers(0, most + 1, (HEIGHT, WIDTH), np.int32)
    labels[0, :2] = most, 255
    places = drawn(0, 1)[1][:2]
    found = np.asarray(points.corner_values(labels, places, most))
    few = places[:1, :64]  # By the kernel in eight rows.
    np.testing.assert_array_equal(points.corner_values(labels, few, most), found[:1, :64])
    for m, p in np.ndindex(*places.shape[:2]):
        offsets = places[m, p] * (WIDTH, HEIGHT) - 0.5
        if np.abs(offsets - np.round(offsets)).min() > 1e-4:  # On a centre rounding decides which cells are around.
            around = [np.clip(cell[:2], 0, (HEIGHT - 1, WIDTH - 1)) for cell in cells_around(places[m, p])]
            np.testing.assert_array_equal(found[m, p], [labels[tuple(cell)] for cell in around])


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (2, 3), (3, 1)])
def test_integers_at_borders_of_small_maps_and_off_them_are_those_of_the_nearest_cells(shape, platform):
    height, width = shape
    labels = np.arange(256, 256 - height * width, -1, dtype=np.int32).reshape(shape)
    cells = np.stack(np.meshgrid(np.arange(-1.75, width + 1, 0.5), np.arange(-0.75, height, 0.5)), axis=-1)
    places = ((cells.reshape(1, -1, 2) + 0.5) / (width, height)).astype(np.float32)
    found = np.asarray(points.corner_values(labels, places, 256))
    for number, (x, y) in enumerate(np.floor(cells.reshape(-1, 2)).astype(int)):
        rows, columns = np.clip([y, y + 1], 0, height - 1), np.clip([x, x + 1], 0, width - 1)
        np.testing.assert_array_equal(found[0, number], labels[np.ix_(rows, columns)].ravel())


def test_masks_that_are_not_wanted_change_nothing_of_the_others(platform):
    maps, places = drawn(0, 1)
    wanted = np.arange(MAPS) % 3 == 1
    labels = np.random.default_rng(3).integers(0, 9, (HEIGHT, WIDTH), np.int32)

    def found(*wanted):
        yield points.sample(maps, places, *wanted)
        yield points.sample(maps, places, *wanted, exact=False)
        yield points.corner_values(labels, places, 255, *wanted)

    for whole, part in zip(found(), found(wanted), strict=True):
        np.testing.assert_array_equal(np.asarray(part)[wanted], np.asarray(whole)[wanted])
        assert np.isfinite(part).all()


def test_the_points_of_the_least_keys_come_in_the_keys_order(platform):
    rng = np.random.default_rng(4)
    keys = np.round(rng.normal(size=(MAPS, POINTS)), 1).astype(np.float32)  # Many are equal: the first one counts.
    keys[0, :5] = np.inf
    places = rng.uniform(size=(MAPS, POINTS, 2)).astype(np.float32)
    order = np.argsort(keys, axis=1, kind="stable")[:, :100]
    found = points.with_least(jnp.asarray(keys), jnp.asarray(places), 100)
    np.testing.assert_array_equal(found, np.take_along_axis(places, order[..., None], axis=1))
