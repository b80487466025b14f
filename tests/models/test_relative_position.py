"""Relative position tables: the index buffer and the geometric-cubic resize."""

import numpy as np
import pytest
from scipy.interpolate import RectBivariateSpline

from vspw_jax.models.encoders import relative_attention, relative_position

# Made by the released resize (interp2d of SciPy 1.11) from z[i, j] = sin(0.3 i) + 0.5 cos(0.2 j):
# ratio q, last three source coordinates, sum, centre, first and last of row 0, first five of row 1.
RELEASED = {
    (27, 59): (
        1.1250559043884278,
        [21.23237281224599, 24.887606396593682, 28.999948522582926],
        [1227.002036823817, -1.1162105358684473, 0.4999999999999999, 0.2342583356501885],
        [0.5692098767010617, 0.5686161303227695, 0.5669334291063283, 0.5640383861334671, 0.559807609830745],
    ),
    (27, 63): (
        1.1349178123474122,
        [22.410250408812363, 26.433792368127026, 31.000181806480445],
        [1475.7282709300287, -1.1162105358684473, 0.5000110526057949, 0.23426611077777548],
        [0.5619864227678427, 0.5614878464278096, 0.5601308507721502, 0.5578148112994947, 0.5544391035084726],
    ),
    (27, 79): (
        1.1685036277771,
        [26.974923021202137, 32.52029540928271, 39.00008316212981],
        [2705.7155123805205, -1.1162105358684478, 0.5000034948530768, 0.23426079195490337],
        [0.5428257115643812, 0.5425197492509382, 0.5418369208527651, 0.5407284340146029, 0.5391454963811937],
    ),
    (27, 111): (
        1.2180692481994626,
        [35.57463714019768, 44.33237151632927, 54.999898443794464],
        [6321.5207264871515, -1.1162105358684475, 0.5, 0.23425833565018855],
        [0.5252908664989729, 0.5250895112793229, 0.5247830985643064, 0.524355520976725, 0.5237906554764853],
    ),
    (111, 59): (
        1.0100009346008303,
        [69.44840085251938, 71.14294976757768, 72.85444575551338],
        [-353.5354445770493, -0.7095724933750972, 1.0266142925603317, 0.10784890640675364],
        [0.8195108713964254, 0.8443247465489981, 0.8573488318503067, 0.8579742534039292, 0.8458903984740052],
    ),
}


@pytest.mark.parametrize(("source", "target"), RELEASED)
def test_the_resize_is_the_released_one(source, target):
    ratio, coordinates, figures, row = RELEASED[source, target]
    y, x = np.mgrid[:source, :source]
    grid = np.sin(0.3 * y) + 0.5 * np.cos(0.2 * x)
    table = np.concatenate([grid.reshape(-1, 1), [[7.0], [8.0], [9.0]]])
    old, new = (source + 1) // 2, (target + 1) // 2
    resized = relative_position.resize(table, (old, old), (new, new))
    result = resized[:-3, 0].reshape(target, target)
    assert relative_position.growth(source, target) == pytest.approx(ratio, abs=1e-14)
    np.testing.assert_allclose(relative_position.source_coordinates(source, target)[-3:], coordinates, rtol=1e-14)
    found = [result.sum(), result[target // 2, target // 2], result[0, 0], result[0, -1]]
    np.testing.assert_allclose(found, figures, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(result[1, :5], row, rtol=1e-12)
    np.testing.assert_array_equal(resized[-3:, 0], [7.0, 8.0, 9.0])


@pytest.mark.parametrize(("source", "target"), [((5, 9), (9, 7)), ((14, 14), (30, 54)), ((2, 2), (4, 3))])
def test_any_window_is_the_tensor_product_spline_of_scipy(source, target):
    rows, columns = (2 * size - 1 for size in source)
    new_rows, new_columns = (2 * size - 1 for size in target)
    table = np.random.default_rng(0).normal(size=(rows * columns + 3, 4))
    resized = relative_position.resize(table, source, target)
    assert resized.shape == (relative_attention.num_rows(target), 4)
    y = relative_position.source_coordinates(rows, new_rows)
    x = relative_position.source_coordinates(columns, new_columns)
    for head in range(4):
        degree = dict(kx=min(3, rows - 1), ky=min(3, columns - 1))
        spline = RectBivariateSpline(y, x, table[:-3, head].reshape(rows, columns), **degree)
        wanted = spline(np.arange(new_rows) - new_rows // 2, np.arange(new_columns) - new_columns // 2)
        np.testing.assert_allclose(resized[:-3, head].reshape(new_rows, new_columns), wanted, atol=1e-12)


def test_the_same_window_changes_nothing():
    table = np.random.default_rng(0).normal(size=(relative_attention.num_rows((3, 5)), 2)).astype(np.float32)
    np.testing.assert_array_equal(relative_position.resize(table, (3, 5), (3, 5)), table)


def test_a_window_of_one_patch_spreads_its_value():
    table = np.arange(4.0)[:, None]
    np.testing.assert_array_equal(relative_position.resize(table, (1, 1), (2, 2))[:, 0], [0.0] * 9 + [1.0, 2.0, 3.0])


@pytest.mark.parametrize("window", [(1, 1), (2, 3), (4, 2)])
def test_the_index_follows_its_definition(window):
    """Row of query minus key, both patches in row-major order; then the three of the class token."""
    height, width = window
    index = relative_position.index(window)
    count = relative_attention.num_rows(window) - 3
    places = [divmod(patch, width) for patch in range(height * width)]
    for query, (y, x) in enumerate(places):
        for key, (other_y, other_x) in enumerate(places):
            wanted = (y - other_y + height - 1) * (2 * width - 1) + x - other_x + width - 1
            assert index[query + 1, key + 1] == wanted
    assert set(index[0, 1:]) == {count}
    assert set(index[1:, 0]) == {count + 1}
    assert index[0, 0] == count + 2


def test_windows_are_told_by_their_rows():
    assert relative_position.windows_of(732) == [(14, 14)]
    assert relative_position.windows_of(12324) == [(56, 56)]
    assert relative_position.windows_of(relative_attention.num_rows((3, 5))) == []
    assert relative_position.windows_of(relative_attention.num_rows((3, 5)), 15) == [(3, 5), (5, 3)]
    assert relative_position.windows_of(relative_attention.num_rows((2, 14)), 28) == [(2, 14), (14, 2)]
    # (2*2-1) * (2*14-1) is 9 * 9: without the number of patches it looks square.
    assert relative_position.windows_of(relative_attention.num_rows((2, 14))) == [(5, 5)]
    for rows, tokens in ((0, 4), (3, None), (11, 5), (5, 1), (84, 7)):
        assert relative_position.windows_of(rows, tokens) == []
