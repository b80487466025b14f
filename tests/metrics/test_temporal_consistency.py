"""TC against PyTorch's grid_sample with the devkit's grid, and against its rule a pixel at a time."""

import numpy as np
import pytest

from vspw_jax.console.errors import UserError
from vspw_jax.metrics import temporal_consistency
from vspw_jax.metrics.temporal_consistency import TemporalConsistency, read_flo, warp_back
from vspw_jax.sampling.dis_flow import DisFlow


def test_the_warp_is_the_devkits_half_a_pixel_off_and_wall_from_outside():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    for height, width in ((7, 9), (1, 5), (48, 64)):
        mask = rng.integers(1, 124, (height, width)).astype(np.uint8)
        flow = rng.normal(0, 3, (height, width, 2)).astype(np.float32)
        x = torch.arange(width)[None, :] + torch.from_numpy(flow[..., 0])
        y = torch.arange(height)[:, None] + torch.from_numpy(flow[..., 1])
        grid = torch.stack([2 * x / max(width - 1, 1) - 1, 2 * y / max(height - 1, 1) - 1], dim=-1)[None]
        pixels = torch.from_numpy(mask)[None, None].float()
        expected = torch.nn.functional.grid_sample(pixels, grid, mode="nearest", align_corners=False)
        np.testing.assert_array_equal(warp_back(mask, flow), expected[0, 0].numpy().astype(np.uint8))


def test_the_first_videos_of_a_split_alone_have_a_flow(monkeypatch):
    monkeypatch.setattr(temporal_consistency, "MOST_VIDEOS", 2)
    flow_of = temporal_consistency.flow_of_first(["b", "a", "c"], list)
    assert [flow_of(video) for video in "abc"] == [[], [], None] and flow_of("a") is not flow_of("a")
    assert temporal_consistency.flow_of_first(["a"], None)("a") is None


def test_pixels_of_no_motion_at_the_edge_come_from_outside():
    """x = W - 1 becomes W - 1/2, which rounds to W for even W: the devkit's grid loses the last column to "wall"."""
    mask = np.full((3, 4), 5, np.uint8)
    assert warp_back(mask, np.zeros((3, 4, 2), np.float32))[1].tolist() == [5, 5, 5, 0]


def test_strange_flow_leads_outside():
    flow = np.array([[[np.nan, 0], [np.inf, 0], [-1e30, 0]]], np.float32)
    assert warp_back(np.full((1, 3), 5, np.uint8), flow).tolist() == [[0, 0, 0]]


def test_rows_are_predictions_and_columns_the_next_ones_warped_back():
    rng = np.random.default_rng(1)
    masks = rng.choice(np.array([0, 1, 2, 255], np.uint8), (4, 6, 7))
    flows = rng.normal(0, 2, (3, 6, 7, 2)).astype(np.float32)
    meter, expected = TemporalConsistency(3), np.zeros((3, 3), int)
    meter.add(masks[0])
    for before, after, flow in zip(masks[:-1], masks[1:], flows, strict=True):
        meter.add(after, flow)
        for row, column in zip(before.ravel(), warp_back(after, flow).ravel(), strict=True):
            if row < 3 and column < 3:
                expected[row, column] += 1
    np.testing.assert_array_equal(meter.confusion.counts_KK, expected)


def write_flo(path, flow):
    head = np.float32(202021.25).tobytes() + np.array(flow.shape[1::-1], "<i4").tobytes()
    path.write_bytes(head + flow.astype("<f4").tobytes())


def test_flow_files_of_both_kinds(tmp_path):
    flow = np.random.default_rng(2).normal(size=(4, 6, 2)).astype(np.float32)
    (tmp_path / "street").mkdir()
    write_flo(tmp_path / "street" / "1.0.flo", flow)
    np.save(tmp_path / "street" / "2.npy", flow)
    source, image = temporal_consistency.flow_source(str(tmp_path)), np.zeros((4, 6, 3), np.uint8)
    for frame in ("1.0", "2"):
        np.testing.assert_array_equal(source(image, image, ("street", frame)), flow)
    with pytest.raises(UserError, match=r"no flow .*3\.flo"):
        source(image, image, ("street", "3"))
    with pytest.raises(UserError, match="its frame's size"):
        source(image[:3], image, ("street", "2"))
    (tmp_path / "cut.flo").write_bytes((tmp_path / "street" / "1.0.flo").read_bytes()[:-1])
    with pytest.raises(UserError, match="cut off"):
        read_flo(tmp_path / "cut.flo")
    (tmp_path / "street" / "2.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(UserError, match="cut off"):
        source(image, image, ("street", "2"))
    with pytest.raises(UserError, match="no such folder"):
        temporal_consistency.flow_source(str(tmp_path / "none"))


def test_dis_finds_a_movement():
    rng = np.random.default_rng(3)
    noise = np.kron(rng.integers(0, 256, (16, 24)), np.ones((4, 4)))[..., None].repeat(3, axis=2).astype(np.uint8)
    flow = DisFlow()(noise, np.roll(noise, 3, axis=1))
    assert np.median(flow[16:-16, 16:-16, 0]) == pytest.approx(3, abs=0.5)
