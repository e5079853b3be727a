"""The parts of `launch.check_tsdf` that carry its figures, on balls and small volumes."""

import importlib.util
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_v2v import make_noise_source

from hpe_jax.errors import InputError
from hpe_jax.hand.skeletons import NYU
from hpe_jax.kernels.tsdf import tsdf
from hpe_jax.kernels.voxels import make_grid
from hpe_jax.methods import METHODS
from hpe_jax.synthetic.surface import SphereMesh
from hpe_jax.training import loop, stages
from launch import check_tsdf, tsdf_pictures, tsdf_refinement
from launch import tsdf_distances as td

# Jitted: compiled once a shape, instead of each of their operations on its own.
make_grid = jax.jit(make_grid, static_argnums=2)
tsdf = jax.jit(tsdf, static_argnums=(4, 5))

ROOT = Path(__file__).resolve().parents[1]
RADIUS, MIDDLE = 40.0, np.array([0.0, 0.0, 600.0])
SIZE = 20


@pytest.fixture(scope="module")
def ball():
    """A ball as a sphere mesh, all other spheres being inside it, and the depth of its front."""
    inner = np.random.default_rng(0).uniform(-10, 10, (41, 3)) + MIDDLE
    centres = np.concatenate([MIDDLE[None], inner]).astype(np.float32)
    mesh = SphereMesh(jnp.asarray(centres), jnp.ones(42).at[0].set(RADIUS))
    camera = np.array([600.0, 600.0, 100.0, 100.0], np.float32)
    v, u = np.mgrid[:200, :200]
    ray = np.stack([(u - 100) / 600, (v - 100) / 600, np.ones_like(u, float)], -1)
    dd, dc = (ray**2).sum(-1), ray @ MIDDLE
    root = dc**2 - dd * (MIDDLE @ MIDDLE - RADIUS**2)
    depth = np.where(root > 0, (dc - np.sqrt(np.maximum(root, 0))) / dd, 0).astype(np.float32)
    grid = make_grid(jnp.asarray(MIDDLE, jnp.float32), jnp.float32(200.0), SIZE)
    return td.View(mesh, jnp.asarray(depth), jnp.zeros(2), jnp.asarray(camera), grid)


def test_regions_about_a_ball(ball):
    d = jax.device_get(td.distances(ball, SIZE))
    axis = (np.arange(SIZE) - (SIZE - 1) / 2) * 10.0
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    away = np.sqrt(x**2 + y**2 + z**2)
    np.testing.assert_allclose(d.exact, away - RADIUS, atol=2e-3)
    place = td.regions(d)
    aside = np.hypot(x, y)
    core = aside < 25
    front, back = core & (z < -45), core & (z > 45)
    assert (place[front] == td.FRONT).all() and (place[back] == td.HIDDEN).all()
    assert (place[aside > 60] == td.BESIDE).all()
    assert (place[core & (away < 35) & (z < -12)] == td.SEEN).all()
    assert (place[core & (away < 35) & (z > 12)] == td.UNSEEN).all()
    # Straight ahead the surface is met along its normal: both distances are one.
    ahead = (aside < 8) & (z < -12) & (z > -90)
    np.testing.assert_allclose(d.projective[ahead], d.exact[ahead], atol=2.0)
    np.testing.assert_allclose(d.cosine[ahead], 1.0, atol=0.15)


def test_ranges_and_rows():
    exact = np.array([0.0, -2.4, 2.5, -9.9, 10.0, 49.9, -50.0, 400.0])
    assert td.ranges(exact).tolist() == [0, 0, 1, 2, 3, 4, 5, 5]
    table = {
        "place": np.array([td.FRONT, td.FRONT, td.BESIDE, td.FRONT]),
        "range": np.array([0, 0, 0, 5]),
        "off": np.array([1.0, 3.0, 40.0, 0.0]),
        "flat": np.array([0.5, 1.5, 9.0, 0.0]),
        "sign": np.array([True, False, True, True]),
    }
    assert check_tsdf.row(table, "a", td.FRONT, 0) == [
        "| a | 0-2.5 mm | 50.00 % | 2.00 | 2.00 | 2.90 | 1.00 | 50.0 % |"
    ]
    assert check_tsdf.row(table, "a", td.FRONT, 5)[0].startswith("| a | 50 mm and more | 25.00 % |")
    assert check_tsdf.row(table, "a", None, None)[0].startswith("| a | any | 100.00 % | 11.00 |")
    # The cosine explains nothing beside the hand.
    assert check_tsdf.row(table, "a", td.BESIDE, 0)[0].endswith("| 40.00 |  | 100.0 % |")
    assert check_tsdf.row(table, "a", td.HIDDEN, 0) == []


def test_crossings_of_a_ball_lie_on_it(ball):
    along = np.linspace(-25.0, 25.0, 51)
    direction = np.array([[0.0, 0.0, -1.0], [0.3, 0.2, -0.93], [-0.5, 0.1, -0.86]])
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    points = (MIDDLE + RADIUS * direction).astype(np.float32)
    values, ray = td.profiles(ball, SIZE, points, along)
    offset = td.first_crossing(np.asarray(values), along)
    distance, cosine = td.surface_at(points + offset[:, None] * np.asarray(ray), ball.mesh)
    # Voxels of 10 mm, interpolated, on a ball that bends by a millimetre from one to the next.
    assert np.abs(offset).max() < 2.5 and np.abs(distance).max() < 2.5
    assert cosine[0] == pytest.approx(1.0, abs=0.01) and 0.8 < cosine[2] < 0.92


def test_first_crossing():
    values = np.array([[3.0, 1.0, -1.0, 2.0, -2.0], [1.0, 2, 3, 4, 5], [-3, -2, -1, 1, 2]])
    found = td.first_crossing(values, np.array([0.0, 2.0, 4.0, 6.0, 8.0]))
    assert found[0] == 3.0 and np.isnan(found[1:]).all()  # Rising through zero is no surface.


def test_causes():
    """Along five lines of sight, one for each."""
    grid = make_grid(jnp.array([0.0, 0.0, 600.0]), jnp.float32(100.0), 5)
    camera = jnp.array([30.0, 30.0, 2.0, 2.0])
    clean = jnp.zeros((5, 5)).at[1:4].set(600.0)
    noisy = clean.at[0].set(640.0).at[1].set(0.0).at[2].set(630.0).at[3].add(5.0)
    far = [tsdf(d, jnp.zeros(2), camera, grid, 5, td.UNTRUNCATED) for d in (noisy, clean)]
    found = np.asarray(tsdf_refinement.causes(*far))
    names = (tsdf_refinement.FRINGE, tsdf_refinement.MISSING, tsdf_refinement.OTHER,
             tsdf_refinement.NOISE, tsdf_refinement.NOTHING)  # fmt: skip
    assert [set(found[:, row].ravel().tolist()) for row in range(5)] == [{n} for n in names]


def test_slices_through_the_fingers():
    flesh = np.zeros((4, 5, 9), bool)
    flesh[1] = True  # A wall of one piece,
    flesh[2, 3, ::2] = True  # and five fingers side by side.
    assert tsdf_pictures.busiest(flesh) == (1, 3)
    flesh[1] = False
    flesh[1, 0] = True
    assert tsdf_pictures.busiest(flesh) == (2, 3)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A folder of stages of which the first has run."""
    workdir = tmp_path_factory.mktemp("hand3d")
    spec = importlib.util.spec_from_file_location("c", ROOT / "configs/hand3d_nyu.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.get_config("quick_refine")
    config.method.update({"input": 16, "refine_widths": (2, 3, 4)})
    config.data.patch, config.batch, config.steps, config.test_frames = 32, 2, 2, 2
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "make_source", lambda _, split: make_noise_source(split))
        stages.run(config, workdir / "refine")
    return workdir


def test_figures_are_those_of_the_method(run, tmp_path):
    config, variables, name = tsdf_refinement.load(str(run))
    assert name == "refine"
    batches, volumes = tsdf_refinement.compare(config, variables, 3)
    assert [len(b["depth"]) for b in batches] == [3] and len(volumes.noisy) == 3
    method = METHODS["hand3d"](config.method, NYU)
    figures = jax.jit(method.measure)(variables, batches[0])
    near = np.abs(volumes.clean) < 50.0
    for mine, theirs in (("noisy", "before"), ("refined", "refined")):
        off = np.abs(getattr(volumes, mine) - volumes.clean)
        np.testing.assert_allclose(off.mean((1, 2, 3)), figures[f"tsdf_{theirs}_mm"], rtol=1e-4)
        mean = np.where(near, off, 0).sum((1, 2, 3)) / near.sum((1, 2, 3))
        np.testing.assert_allclose(mean, figures[f"tsdf_{theirs}_near_mm"], rtol=1e-4)
    # Nothing differs where neither depth image has a reading.
    nothing = volumes.cause == tsdf_refinement.NOTHING
    assert nothing.any() and (volumes.noisy == volumes.clean)[nothing].all()
    lines = tsdf_refinement.refinement(str(run), 3, tmp_path)
    assert lines[2].startswith("| **all** | 100.0 % |") and "`refine`, 3 frames" in lines[-1]
    assert (tmp_path / "refinement.png").stat().st_size > 10_000


def test_mistakes_are_named(tmp_path, monkeypatch, capsys):
    with pytest.raises(InputError, match="no checkpoints/ in it"):
        tsdf_refinement.load(str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["check_tsdf", f"--out={tmp_path}", "--frames=0"])
    with pytest.raises(SystemExit):
        check_tsdf.main()
    assert "--frames=0: expected at least 1" in capsys.readouterr().err
