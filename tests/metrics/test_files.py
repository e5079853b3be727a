"""Prediction files: what is read, what is refused, and that writing is all or nothing."""

from __future__ import annotations

import numpy as np
import pytest

from hpe_jax.errors import InputError
from hpe_jax.metrics.files import read_joints, write_joints


@pytest.fixture
def values() -> np.ndarray:
    return np.random.default_rng(0).normal(0, 100, (5, 3, 3))


def test_round_trip(tmp_path, values):
    write_joints(tmp_path / "a.txt", values)
    back = read_joints(tmp_path / "a.txt", 3)
    np.testing.assert_allclose(back.values, values, atol=5.01e-4)
    assert back.names is None
    names = [f"depth_1_{i:07d}.png" for i in range(5)]
    write_joints(tmp_path / "b.txt", values, names)
    back = read_joints(tmp_path / "b.txt", (14, 3))
    assert back.names == names
    np.testing.assert_allclose(back.values, values, atol=5.01e-4)


def test_tabs_commas_blank_lines_names_and_carriage_returns(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"seq/0.png 1 2\r\n")
    with pytest.raises(InputError, match="line 1: 2 numbers after the name, expected 3 numbers"):
        read_joints(path, 1)
    path.write_bytes(b"\r\nx.png\t1\t-2.5\t3e2 \r\r\n\r\ny.png 4 5 6\n\n")
    back = read_joints(path, 1)
    assert back.names == ["x.png", "y.png"]
    np.testing.assert_array_equal(back.values, [[[1, -2.5, 300]], [[4, 5, 6]]])
    path.write_bytes(b"1,-2.5, 3e2\r\n4, 5,6,\n")
    np.testing.assert_array_equal(read_joints(path, 1).values, back.values)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty, expected 6 numbers"),
        ("1 2 3 4 5\n", r"line 1: 5 numbers, expected 6 numbers \(2 joints x uvd\)"),
        ("1 2 3 4 5 6 7 8 9\n", "line 1: 9 numbers, expected 6"),
        ("1 2 3 4 5 6\n\n1 2 3 4 5\n", "line 3: 5 columns, expected 6 as in line 1"),
        ("1 2 3 4 5 6\nx.png 1 2 3 4 5 6\n", "line 2: 7 columns, expected 6"),
        ("1 2 3 4 5 6\n1 2 nan 4 5 6\n", "line 2: column 3 is 'nan', expected a finite number"),
        ("1 2 3 4 5 6\n1 2 3 4 inf 6\n", "line 2: column 5 is 'inf'"),
        ("x 1 2 3 4 5 6\ny 1 2 3 4 5 six\n", "line 2: column 7 is 'six'"),
        ("1 2 3 4 5 6\nx 2 3 4 5 6\n", "line 2: column 1 is 'x'"),
    ],
)
def test_bad_files_are_refused_by_line(tmp_path, text, message):
    path = tmp_path / "bad.txt"
    path.write_text(text)
    with pytest.raises(InputError, match=f"bad.txt.*{message}") as caught:
        read_joints(path, 2)
    assert "\n" not in str(caught.value)


def test_missing_and_binary_files_are_refused(tmp_path):
    with pytest.raises(InputError, match="none.txt: No such file"):
        read_joints(tmp_path / "none.txt", 2)
    with pytest.raises(InputError, match="Is a directory"):
        read_joints(tmp_path, 2)
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\xff\xfe")
    with pytest.raises(InputError, match="not text"):
        read_joints(tmp_path / "a.png", 2)


def test_non_finite_is_not_written(tmp_path, values):
    path = tmp_path / "a.txt"
    write_joints(path, values)
    before = path.read_bytes()
    values[3, 1, 2] = np.nan
    with pytest.raises(InputError, match="frame 3"):
        write_joints(path, values)
    with pytest.raises(InputError, match="2 names for 3 frames"):
        write_joints(path, values[:3], ["a", "b"])
    assert path.read_bytes() == before
