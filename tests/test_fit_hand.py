"""`launch.fit_hand`: the synthetic surface fitted to frames without labels."""

import subprocess
import sys
from pathlib import Path

import hands
import jax
import jax.numpy as jnp
import numpy as np

from hpe_jax import camera as cameras
from hpe_jax.hand.inverse import rotation_step
from hpe_jax.hand.kinematics import labels, place
from hpe_jax.synthetic import poses
from hpe_jax.synthetic.render import render_depth
from hpe_jax.synthetic.surface import HAND_AND_FOREARM
from launch import surface_fit
from launch.surface_fit import Seen, Unknowns, fit, look, neighbours, surface

FRAMES = 3


def test_a_rendered_hand_is_found_again(monkeypatch):
    """From joints 11 mm off, those of one hand in three poses, to labels well nearer."""
    # Two starts of eight: unoptimised, as tests compile, each takes seconds.
    monkeypatch.setattr(surface_fit, "THUMBS", surface_fit.THUMBS[:1])
    camera = np.asarray(cameras.NYU.intrinsics, np.float32)
    shape = hands.subject_shape(jax.random.key(3), False, "wide")

    @jax.jit
    def frame(key):
        pose, local, _ = poses.sample_hand(key, shape, poses.VIEWS["nyu"])
        points = place(local, pose)
        mesh = surface(points, shape, pose)
        depth = render_depth(mesh, HAND_AND_FOREARM, jnp.zeros(2), jnp.asarray(camera), (480, 640))
        return depth, labels(points, shape, "nyu")

    drawn = [frame(key) for key in jax.random.split(jax.random.key(5), FRAMES)]
    depths, true = (np.stack([np.asarray(d[i]) for d in drawn]) for i in (0, 1))
    rough = true + np.random.default_rng(0).normal(0, 7, true.shape).astype(np.float32)
    shown = [look(d, camera, t.mean(0), 250.0, 0) for d, t in zip(depths, true, strict=True)]
    assert all(s["counts"].sum() > 300 for s in shown)
    seen = Seen(**{k: jnp.stack([s[k] for s in shown]) for k in shown[0]}, joints=rough)
    (_, _, found), fitted, misfits = fit(seen, camera, steps=80)
    before = np.linalg.norm(rough - true, axis=-1).mean()
    after = np.linalg.norm(np.asarray(found) - true, axis=-1).mean()
    assert before > 10 and after < 0.7 * before, (before, after)
    assert np.isfinite(misfits).all() and 0.6 < fitted.scale < 1.3


def test_poses_of_neighbouring_frames_keep_their_rotation():
    turns = jax.jit(jax.vmap(rotation_step))
    starts = turns(jax.random.normal(jax.random.key(0), (4, 3)))
    turn = 0.5 * jax.random.normal(jax.random.key(1), (4, 3))
    x = Unknowns(jnp.zeros((4, 4, 4)), jnp.zeros((4, 5)), jnp.zeros((4, 2)), turn, jnp.ones((4, 3)))
    moved = neighbours(x, starts, 1)
    before = starts @ turns(turn)
    after = starts @ turns(moved.turn)
    np.testing.assert_allclose(after, jnp.roll(before, 1, 0), atol=1e-4)


def test_no_frames_is_one_line(tmp_path):
    command = [sys.executable, "-m", "launch.fit_hand", f"--workdir={tmp_path}", "--camera=1,1,0,0"]
    result = subprocess.run(
        [*command, f"--frames={tmp_path}", f"--out={tmp_path}"],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
    )
    assert result.returncode == 2 and not result.stdout and len(result.stderr.splitlines()) == 1
    assert f"{tmp_path}: expected depth frames" in result.stderr
