"""Hand joints for recorded depth frames.

    python -m hpe_jax.predict --workdir=runs/quickstart --input=recording/ \\
        --camera=588.03,587.07,320,240 --out=results

Every frame stands alone: find the hand (nearest surface, iterated centre of mass), cut a patch
of native pixels about it, predict. A model knows right hands as its data set shows them; for
`--hand=left` the image is mirrored, predicted, and the joints are mirrored back. `--hand=auto`
predicts every frame both ways and keeps, for the whole input, the hand whose joints fit the
depth better (`inside_hand`).

Below `--out`: `joints.jsonl` (a line a frame, written as soon as it is known, or, with
`--hand=auto`, when the hand is decided), `summary.json`, `overlays/` and, for more than one
frame, `animation.gif`.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

if TYPE_CHECKING:
    import numpy as np

    from hpe_jax.metrics.recording import Prediction
    from hpe_jax.predictor import Predictor


HANDS = ("right", "left", "auto")


def predict_frames(
    predictor: Predictor,
    frames: list[Path],
    camera: np.ndarray,
    out: Path,
    *,
    depth_unit: float = 1.0,
    hand: str = "right",
    centres: np.ndarray | None = None,
    passes: int = 1,
    skip_unreadable: bool = False,
) -> dict[str, Any]:
    """Predict all frames of a recording into `out`; returns what `summary.json` holds.

    Args:
      centres: (N, 3) mm, y down, one a frame, a row of NaN where there is no hand.
      skip_unreadable: an unreadable frame gets a line without joints and is reported; else it
        stops everything, after what was predicted before it has been written.

    Raises:
      InputError: a frame is unreadable, or a centre lies outside its frame.
    """
    import numpy as np

    from hpe_jax.datasets.depth_io import read_depth
    from hpe_jax.datasets.patches import outside_frame
    from hpe_jax.errors import InputError
    from hpe_jax.metrics.recording import Writer

    hands = ("right", "left") if hand == "auto" else (hand,)
    undecided: list[tuple[str, dict[str, Prediction | None]]] = []
    writer, size, warm = Writer(out, predictor.skeleton), None, False
    unreadable, failed, reading = 0, None, 0.0

    def keep(name: str, found: dict[str, Prediction | None]) -> None:
        if hand == "auto":
            undecided.append((name, found))
        else:
            writer.add(name, found[hand])

    for i, path in enumerate(frames):
        begun = time.perf_counter()
        try:
            depth = read_depth(path, depth_unit=depth_unit, size=size)
        except InputError as error:
            if not skip_unreadable:
                failed = error
                break
            unreadable += 1
            print(f"skipped: {error}", file=sys.stderr)
            keep(path.name, dict.fromkeys(hands))
            continue
        reading += time.perf_counter() - begun
        size = depth.shape
        centre = None if centres is None else centres[i]
        if centre is not None and np.isnan(centre).any():
            keep(path.name, dict.fromkeys(hands))
            continue
        if centre is not None and outside_frame(centre, camera, depth.shape):
            where = np.round(centre).tolist()
            failed = InputError(f"{path}: its centre {where} mm is outside the frame")
            break
        how: dict[str, Any] = {"centre": centre, "passes": passes}
        if not warm:  # Compiles, which no frame's latency should contain.
            warm = predictor(depth, camera, hand=hands[0], **how) is not None
        keep(path.name, {h: predictor(depth, camera, hand=h, **how) for h in hands})

    extra: dict[str, Any] = {"skeleton": predictor.skeleton_name, "cube_mm": predictor.cube_mm}
    if hand == "auto":
        shares = {h: _mean_inside([found[h] for _, found in undecided]) for h in hands}
        hand = max(hands, key=lambda h: shares[h])
        extra["inside_hand_by_hand"] = shares
        for name, found in undecided:
            writer.add(name, found[hand])
    # Reading and predicting; not compiling, nor drawing and writing pictures.
    seconds = reading + sum(writer.latency) / 1000
    extra |= {
        "frames_unreadable": unreadable,
        "frames_per_second": len(writer.latency) / seconds if writer.latency else None,
        "hand": hand,
        "centre": "com" if centres is None else "file",
        "passes": passes,
    }
    summary = writer.close(extra)
    if failed is not None:
        raise InputError(f"{failed}; the {writer.frames} frames before it are in {out}")
    return summary


def _mean_inside(found: list[Prediction | None]) -> float:
    shares = [prediction.inside for prediction in found if prediction is not None]
    return sum(shares) / len(shares) if shares else 0.0


def main(argv: list[str]) -> int:
    """Exit status of the command `argv`: 2 and one line on stderr for bad input."""
    from hpe_jax.errors import InputError

    if {"-h", "--help", "-help"} & set(argv):
        print(f"{__doc__}\nflags:\n{make_flags().get_help()}")
        return 0
    given = make_flags()
    try:
        rest = given(argv)[1:]
        if rest:
            raise InputError(f"{rest[0]}: unexpected, frames are given with --input=FILE or DIR")
        _run(given)
    except (InputError, OSError, flags.Error) as error:
        print("error: " + " ".join(str(error).split()), file=sys.stderr)
        return 2
    return 0


def _run(given: flags.FlagValues) -> None:
    # Imported late, so that --help and a mistyped flag answer at once.
    from hpe_jax.datasets.centres import read_centres
    from hpe_jax.datasets.depth_io import list_frames
    from hpe_jax.errors import InputError

    if given.artifact:
        raise InputError("--artifact: not built yet, expected --workdir=DIR of a training run")
    for name in ("workdir", "input", "out", "camera"):
        if not given[name].value:
            raise InputError(f"--{name}: missing, see --help")
    camera = parse_camera(given.camera)
    if not given.depth_unit > 0:
        raise InputError(f"--depth_unit={given.depth_unit:g}: expected a positive number of mm")
    frames = list_frames(given.input)
    centres = None
    if given.centres:
        centres = read_centres(given.centres, y_up=given.centres_y_up, frames=len(frames))

    import jax

    cache = os.environ.get("HPE_JAX_CACHE", str(Path.home() / ".cache" / "hpe_jax"))
    if cache:  # As in `main`; HPE_JAX_CACHE= switches the cache of compiled functions off.
        jax.config.update("jax_compilation_cache_dir", cache)
    from hpe_jax.predictor import Predictor
    from hpe_jax.training.checkpoints import load_model

    out = Path(given.out)
    summary = predict_frames(
        Predictor(*load_model(given.workdir)), frames, camera, out,
        depth_unit=given.depth_unit, hand=given.hand, centres=centres, passes=given.passes,
        skip_unreadable=given.skip_unreadable,
    )  # fmt: skip
    print(report(summary, out, auto=given.hand == "auto"))


def report(summary: dict[str, Any], out: Path, *, auto: bool) -> str:
    """What the terminal is told."""
    lines = []
    if auto:
        shares = " and ".join(f"{v:.1%} as {k}" for k, v in summary["inside_hand_by_hand"].items())
        lines.append(f"taken for a {summary['hand']} hand: joints inside the hand {shares}")
    none = summary["frames_without_hand"]
    if none:
        lines.append(f"{none} of {summary['frames']} frames show no hand or were unreadable")
    if summary["inside_hand"] is not None:
        lines.append(
            f"{summary['frames']} frames, {summary['inside_hand']:.1%} of the joints inside the "
            f"hand, {summary['latency_ms']:.1f} ms a frame, "
            f"{summary['frames_per_second']:.1f} frames a second"
        )
    return "\n".join([*lines, f"written to {out}"])


def make_flags() -> flags.FlagValues:
    """The command line; values of its own, apart from those of other commands."""
    values = flags.FlagValues()
    text = {
        "workdir": "folder of a training run; its latest checkpoint is used",
        "artifact": "an exported model instead of --workdir; not built yet",
        "input": "a depth frame, or a folder of them in name order: 16-bit or NYU's PNG, .npy",
        "centres": "text file of hand centres, 'x y z' mm or 'invalid' a frame; else found here",
        "out": "folder for joints.jsonl, summary.json and pictures",
    }
    for name, meaning in text.items():
        flags.DEFINE_string(name, None, meaning, values)
    switches = {
        "centres_y_up": "y of --centres points up, as in NYU's published files",
        "skip_unreadable": "report unreadable frames and go on, instead of stopping",
    }
    for name, meaning in switches.items():
        flags.DEFINE_bool(name, False, meaning, values)
    flags.DEFINE_list("camera", None, "fx,fy,cx,cy of the frames in pixels, y down", values)
    flags.DEFINE_float(
        "depth_unit", 1.0, "mm for one count of a 16-bit PNG or .npy", None, None, values
    )
    flags.DEFINE_enum("hand", "right", HANDS, "which hand the frames show", values)
    flags.DEFINE_integer(
        "passes", 1, "2 predicts again about the mean of the joints found first", 1, 2, values
    )
    return values


def parse_camera(values: list[str]) -> np.ndarray:
    """`fx,fy,cx,cy` as (4,) float32.

    Raises:
      InputError: not four finite numbers, or a focal length that is not positive.
    """
    import numpy as np

    from hpe_jax.errors import InputError

    text = ",".join(values)
    try:
        camera = np.array([float(v) for v in values], np.float32)
    except ValueError:
        camera = np.empty(0, np.float32)
    if camera.shape != (4,) or not np.isfinite(camera).all():
        raise InputError(f"--camera={text}: expected four numbers fx,fy,cx,cy in pixels")
    if (camera[:2] <= 0).any():
        raise InputError(
            f"--camera={text}: expected fx and fy > 0; y points down here, so a data set that "
            "writes fy negative is given with its absolute value"
        )
    return camera


if __name__ == "__main__":
    sys.exit(main(sys.argv))
