import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from hpe_jax.datasets.depth_io import list_frames, read_depth, unpack_nyu
from hpe_jax.errors import InputError


def save_png16(path, depth):
    Image.fromarray(np.asarray(depth, np.uint16)).save(path)


def slow_unpack(rgb):
    out = np.zeros(rgb.shape[:2], np.float32)
    for i in range(rgb.shape[0]):
        for j in range(rgb.shape[1]):
            value = int(rgb[i, j, 1]) * 256 + int(rgb[i, j, 2])
            out[i, j] = 0 if value >= 2000 else value
    return out


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 65535), min_size=6, max_size=6))
def test_unpack_nyu_matches_the_loop(values):
    values = np.array(values).reshape(2, 3)
    rgb = np.stack([np.zeros((2, 3)), values >> 8, values & 255], -1).astype(np.uint8)
    np.testing.assert_array_equal(unpack_nyu(rgb), slow_unpack(rgb))


def test_png16_in_units(tmp_path):
    save_png16(tmp_path / "a.png", [[0, 800, 65535], [1, 2, 3]])
    depth = read_depth(tmp_path / "a.png", depth_unit=0.125)
    assert depth.dtype == np.float32
    np.testing.assert_array_equal(depth, [[0, 100, 65535 / 8], [0.125, 0.25, 0.375]])


def test_npy_without_readings(tmp_path):
    np.save(tmp_path / "a.npy", np.array([[np.nan, np.inf, -1.0], [0.0, 0.5, 1.0]]))
    np.testing.assert_array_equal(
        read_depth(tmp_path / "a.npy", depth_unit=1000), [[0, 0, 0], [0, 500, 1000]]
    )


def test_real_nyu_frame(shared_data):
    depth = read_depth(shared_data / "nyu" / "depth_1_0000001.png", size=(480, 640))
    assert depth.shape == (480, 640)
    assert depth.max() < 2000 and depth[depth > 0].min() > 700
    # The wrist, at its labelled pixel, is a little nearer than the labelled joint inside it.
    assert 0 < 794.2 - depth[327, 210] < 40


def test_real_kinect_and_sr305_frames(shared_data):
    kinect = read_depth(shared_data / "kinect2" / "00000061.png")
    assert kinect.shape == (424, 512) and 400 < kinect[kinect > 0].min() < 1000
    frames = list_frames(shared_data / "sr305")
    # Recorded in this order: their names count without leading zeros.
    assert [int(p.stem.split("_")[1]) for p in frames] == [30, 50, 70, 90, 110, 130, 150, 170]
    near = read_depth(frames[0], depth_unit=0.125)
    assert near.shape == (480, 640) and 100 < np.median(near[near > 0]) < 1200


def test_truncated_png_names_the_file(tmp_path):
    save_png16(tmp_path / "a.png", np.random.default_rng(0).integers(0, 9000, (64, 64)))
    content = (tmp_path / "a.png").read_bytes()
    for length in (0, 20, 60, len(content) // 2):
        (tmp_path / "cut.png").write_bytes(content[:length])
        with pytest.raises(InputError, match=r"cut\.png: truncated or unreadable PNG") as error:
            read_depth(tmp_path / "cut.png")
        assert "\n" not in str(error.value)


def test_truncated_npy_names_the_file(tmp_path):
    np.save(tmp_path / "a.npy", np.ones((64, 64)))
    content = (tmp_path / "a.npy").read_bytes()
    for length in (0, 5, 200, len(content) - 1):
        (tmp_path / "cut.npy").write_bytes(content[:length])
        with pytest.raises(InputError, match=r"cut\.npy: unreadable"):
            read_depth(tmp_path / "cut.npy")


def test_wrong_kinds_are_refused(tmp_path):
    colour = np.full((4, 4, 3), 9, np.uint8)
    Image.fromarray(colour).save(tmp_path / "rgb.png")
    Image.fromarray(colour[..., 0]).save(tmp_path / "grey.png")
    colour[:] = (0, 4, 9)
    Image.fromarray(colour).save(tmp_path / "packed.png")
    np.save(tmp_path / "cube.npy", np.ones((2, 2, 2)))
    np.save(tmp_path / "words.npy", np.array([["a"]]))
    np.savez(tmp_path / "many.npz", depth=np.ones((2, 2)))
    (tmp_path / "many.npz").rename(tmp_path / "many.npy")
    (tmp_path / "notes.txt").write_text("0")
    for name, expected in {
        "rgb.png": "a colour image; expected depth",
        "grey.png": "found mode L",
        "cube.npy": "expected a 2-D array",
        "words.npy": "expected a 2-D array",
        "many.npy": "expected one array as .npy, found an archive",
        "notes.txt": "expected a depth frame as .png or .npy",
        "missing.png": "no such depth frame",
    }.items():
        with pytest.raises(InputError, match=expected) as error:
            read_depth(tmp_path / name)
        assert name in str(error.value)
    assert (read_depth(tmp_path / "packed.png") == 4 * 256 + 9).all()
    with pytest.raises(InputError, match="expected depth_unit 1"):
        read_depth(tmp_path / "packed.png", depth_unit=0.125)


def test_sizes_that_cannot_be_are_refused(tmp_path):
    """Torn headers ask for pictures of gigabytes, or are those of an archive."""
    path = tmp_path / "huge.png"
    Image.fromarray(np.ones((4, 4), np.uint16)).save(path)
    raw = bytearray(path.read_bytes())
    raw[16:24] = struct.pack(">II", 30_000, 30_000)
    raw[29:33] = struct.pack(">I", zlib.crc32(bytes(raw[12:29])))
    path.write_bytes(raw)
    with pytest.raises(InputError, match="huge.png: truncated or unreadable PNG"):
        read_depth(path)
    for name, content in (("zip.npy", b"PK\x03\x04 no archive"), ("empty.npy", None)):
        path = tmp_path / name
        if content is None:
            np.save(path, np.zeros((0, 0), np.float32))
        else:
            path.write_bytes(content)
        with pytest.raises(InputError, match=name):
            read_depth(path)
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999, 99999999), }"
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    path = tmp_path / "vast.npy"
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header)
    with pytest.raises(InputError, match="vast.npy: unreadable"):
        read_depth(path)


def test_wrong_size(tmp_path):
    save_png16(tmp_path / "a.png", np.ones((4, 6)))
    with pytest.raises(InputError, match=r"a\.png: the frame is 6 x 4 pixels, expected 640 x 480"):
        read_depth(tmp_path / "a.png", size=(480, 640))


def test_list_frames(tmp_path):
    for name in ("b.png", "a.npy", "c.PNG", "._b.png", "notes.txt"):
        (tmp_path / name).touch()
    assert [p.name for p in list_frames(tmp_path)] == ["a.npy", "b.png", "c.PNG"]
    assert list_frames(tmp_path / "b.png") == [tmp_path / "b.png"]
    (tmp_path / "bb.png").symlink_to(tmp_path / "gone.png")
    assert [p.name for p in list_frames(tmp_path)] == ["a.npy", "b.png", "bb.png", "c.PNG"]
    (tmp_path / "bb.png").unlink()
    (tmp_path / "takes").mkdir()
    names = ["1.png", "take2_09.png", "take2_9.png", "take2_10.png", "take10_1.png", "take.png"]
    for name in reversed(names):
        (tmp_path / "takes" / name).touch()
    assert [p.name for p in list_frames(tmp_path / "takes")] == names
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="expected depth frames"):
        list_frames(tmp_path / "empty")
    for nothing in ("nothing", "nothing/*.png"):
        with pytest.raises(InputError, match="no such file or directory$"):
            list_frames(tmp_path / nothing)
    with pytest.raises(InputError, match="a pattern can only be its last part"):
        list_frames(tmp_path / "*" / "1.png")


def test_list_frames_of_a_pattern(tmp_path):
    names = ["depth_1_0000002.png", "depth_1_0000010.png"]
    for name in (*names, "depth_2_0000002.png", "rgb_1_0000002.png", "joint_data.mat"):
        (tmp_path / name).touch()
    for pattern in ("depth_1_*.png", "depth_1_**.png", "depth_1_00000??.*", "d*[1]_00*"):
        assert [p.name for p in list_frames(tmp_path / pattern)] == names
    for mixed in (tmp_path, tmp_path / "depth_*"):
        with pytest.raises(InputError, match=r"holds NYU's depth_1, depth_2.*/depth_1_\*\.png"):
            list_frames(mixed)
    with pytest.raises(InputError, match=r"depth_3\*: expected depth frames"):
        list_frames(tmp_path / "depth_3*")
    (tmp_path / "own").mkdir()
    for name in ("depth_1_1.png", "depth_2_1.png"):  # Two takes, not two cameras.
        (tmp_path / "own" / name).touch()
    assert len(list_frames(tmp_path / "own")) == 2
