import numpy as np
import pytest
from scipy.io import savemat

from hpe_jax.camera import NYU, uvd_to_xyz, xyz_to_uvd
from hpe_jax.datasets.centres import read_centres, write_centres
from hpe_jax.errors import InputError


@pytest.mark.parametrize("y_up", [False, True])
def test_round_trip(tmp_path, y_up):
    centres = np.array([[1.5, -2.25, 700.125], [np.nan] * 3, [0, 20, 900]], np.float32)
    write_centres(tmp_path / "c.txt", centres, y_up=y_up)
    lines = (tmp_path / "c.txt").read_text().splitlines()
    assert lines[1] == "invalid" and float(lines[0].split()[1]) == (2.25 if y_up else -2.25)
    np.testing.assert_array_equal(read_centres(tmp_path / "c.txt", y_up=y_up), centres)


def test_published_centres_lie_near_the_published_joints(shared_data):
    """In y-up coordinates they do; read as y down they would be 13 cm off."""
    folder = shared_data / "nyu"
    u, v, d = (np.loadtxt(folder / f"joint_1_{c}.csv", delimiter=",") for c in "uvd")
    from hpe_jax.hand.skeletons import NYU_COLUMNS

    uvd = np.stack([u, v, d], -1)[:, list(NYU_COLUMNS)]
    mean = uvd_to_xyz(uvd, NYU.intrinsics.astype(np.float64)).mean(1)
    path = folder / "center_test_refined.txt"
    off = np.linalg.norm(read_centres(path, y_up=True, frames=8252) - mean, axis=1)
    assert off.mean() == pytest.approx(21.2, abs=0.2)
    wrong = np.linalg.norm(read_centres(path) - mean, axis=1)
    assert wrong.mean() > 100


@pytest.mark.parametrize(
    ("name", "frames"),
    [("nyu/center_train_refined.txt", 72_757), ("msra15/center_test_3_refined.txt", 8_498)],
)
def test_other_published_files_are_read(shared_data, name, frames):
    centres = read_centres(shared_data / name, y_up=True, frames=frames)
    found = centres[np.isfinite(centres[:, 0])]
    assert len(found) > 0.99 * frames
    assert (found[:, 2] > 150).all() and (found[:, 2] < 2000).all()


def test_centres_in_pixels_of_a_matlab_file(tmp_path):
    centres = np.array([[10.5, -20.25, 700], [np.nan] * 3, [0, 30, 900]], np.float32)
    pixels = xyz_to_uvd(np.nan_to_num(centres, nan=1.0).astype(np.float64), NYU.intrinsics)
    pixels[1] = 320, 240, 0  # none
    savemat(tmp_path / "c.mat", {"centre_pixel": pixels[:, None]})
    back = read_centres(tmp_path / "c.mat", y_up=True, frames=3, camera=NYU.intrinsics)
    np.testing.assert_allclose(back, centres, rtol=1e-6)
    with pytest.raises(InputError, match=r"c\.mat: 3 centres, expected one a frame, 5 in all"):
        read_centres(tmp_path / "c.mat", frames=5, camera=NYU.intrinsics)
    for wrong, message in (
        ({"centre_pixel": pixels}, r"centre_pixel is \(3, 3\), expected \(frames, 1, 3\)"),
        ({"centre_pixel": "none"}, "centre_pixel holds <U4, expected numbers"),
        ({"center": pixels}, "expected the variable centre_pixel"),
    ):
        savemat(tmp_path / "c.mat", wrong)
        with pytest.raises(InputError, match=rf"c\.mat: {message}"):
            read_centres(tmp_path / "c.mat", camera=NYU.intrinsics)
    with pytest.raises(InputError, match=r"missing\.mat: unreadable, expected a MATLAB file"):
        read_centres(tmp_path / "missing.mat", camera=NYU.intrinsics)
    with pytest.raises(ValueError, match="expected a camera"):
        read_centres(tmp_path / "c.mat")


def test_bad_files(tmp_path):
    path = tmp_path / "c.txt"
    for text in ("1 2 3\n4 5\n", "1 2 3\n4 5 x\n", "1 2 3\n4 5 nan\n", "1 2 3\n\n1 2 3\n"):
        path.write_text(text)
        with pytest.raises(InputError, match=r"c\.txt: line 2: expected 'x y z'"):
            read_centres(path)
    path.write_text("1 2 3\n\n")
    assert read_centres(path).shape == (1, 3)
    with pytest.raises(InputError, match=r"c\.txt: 1 centres, expected one a frame, 5 in all"):
        read_centres(path, frames=5)
    with pytest.raises(InputError, match="no such file, expected a text file"):
        read_centres(tmp_path / "missing.txt")
