"""Hand joints for recorded depth frames.

    python -m hpe_jax.predict --workdir=runs/quickstart --input=recording/ \\
        --camera=588.03,587.07,320,240 --out=results

`--input` is a frame, a folder of them, or a pattern: 'NYU/test/depth_1_*.png'.
Every frame stands alone: find the hand (nearest surface, iterated centre of mass; or by the
network of `--centre_model`), cut a patch of native pixels about it, predict. A model knows the
hand that its data set shows, right but in ICVL; frames of the other `--hand` are mirrored, and the
joints are mirrored back. `--hand=auto` predicts the first frames (100 that show a hand, or all)
both ways, takes, for the whole input, the hand whose joints fit the depth of those better
(`inside_hand`), and goes on with it.

Below `--out`: `joints.jsonl` and `predictions.txt` (a line a frame, written as soon as it is known,
or, with `--hand=auto`, as soon as the hand is decided; the latter as `hpe_jax.evaluate` reads it,
nan where there is no hand), `summary.json` and, but for `--nopictures`, `overlays/` and, for more
than one frame, `animation.gif`. Nothing there is touched before a first frame shows a hand.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags, logging

from hpe_jax.camera_flag import doubt, parse_camera
from hpe_jax.command import run_command
from hpe_jax.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from hpe_jax.predictor import Predictor
    from hpe_jax.recording import Prediction


HANDS = ("right", "left", "auto")
USUAL = (150.0, 2000.0)
"""Distances, mm, at which cameras see hands well; others are said, in case the unit is wrong."""
FEW, UNSURE = 40, 0.03
"""Fewer frames, or a smaller difference of `inside_hand`, do not tell hands apart: of a left hand's
recording a V2V `quick` took 16 % of all stretches of 20 frames for a right one's, 8 % of those of
30 and none of 40; `long` 5 % of 20 and none of 30."""


class UnusableFrame(InputError):
    """What `--skip_unreadable` passes over."""


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
    pictures: bool = True,
) -> dict[str, Any]:
    """Predict all frames of a recording into `out`; returns what `summary.json` holds.

    Args:
      centres: (N, 3) mm, y down, one a frame, a row of NaN where there is no hand.
      skip_unreadable: a frame that cannot be read, or has nothing about its centre, gets a line
        without joints and is reported; else it stops everything, after what was predicted before
        it has been written.
      pictures: whether to draw overlays and an animation.

    Raises:
      InputError: a frame is unreadable or its unit of depth is wrong, or a centre lies outside
        its frame or where nothing was read; or not a single frame shows a hand. Where none did
        nothing has been written.
      KeyboardInterrupt: Ctrl-C, after what was predicted before it has been written.
    """
    import numpy as np

    from hpe_jax.datasets.depth_io import read_depth
    from hpe_jax.progress import Rate, Status
    from hpe_jax.recording import HandChoice, Writer

    writer = Writer(out, predictor.skeleton, camera, pictures)
    choice = HandChoice(writer, ("right", "left") if hand == "auto" else (hand,))
    status, rate = Status(), Rate(len(frames))
    warm, unreadable, seconds = False, 0, 0.0
    size: tuple[int, int] | None = None
    stopped: InputError | KeyboardInterrupt | None = None

    def predict(path: Path, centre: np.ndarray | None) -> dict[str, Prediction | None]:
        nonlocal warm, seconds, size
        begun = time.perf_counter()
        try:
            depth = read_depth(path, depth_unit=depth_unit, size=size)
        except InputError as error:
            raise UnusableFrame(str(error)) from error
        seconds += time.perf_counter() - begun
        size = depth.shape
        if centre is not None and np.isnan(centre).any():
            return dict.fromkeys(choice.hands)
        see = partial(_see, predictor, path, depth, camera, centre, passes)
        if not warm:  # Compiles, which no frame's latency should contain.
            warm = any(see(choice.hands[:1]).values())
        found = see(choice.hands)
        if centre is not None and not any(found.values()):
            raise UnusableFrame(
                f"{path}: no reading in the cube of {predictor.cube_mm:g} mm about its centre "
                f"{np.round(centre).tolist()} mm: are --centres in mm, and y down or "
                "--centres_y_up given?"
            )
        seconds += sum(p.latency_ms for p in found.values() if p is not None) / 1000
        return found

    try:
        for i, path in enumerate(frames):
            if warm:
                status.show(rate.text(i))
            try:
                found = predict(path, None if centres is None else centres[i])
            except UnusableFrame as error:
                if not skip_unreadable:
                    raise
                unreadable += 1
                status.clear()
                print(f"skipped: {error}", file=sys.stderr)
                found = dict.fromkeys(choice.hands)
            if any(found.values()):
                writer.open()
            choice.add(path.name, found)
    except (InputError, KeyboardInterrupt) as error:
        stopped = error
    status.clear()
    if not writer.opened:
        what = "could be read" if unreadable == len(frames) else "shows a hand"
        raise stopped or InputError(
            f"none of the {len(frames)} frames {what}, nothing was written; the first is "
            f"{frames[0]}"
        )
    choice.decide()
    extra: dict[str, Any] = {"skeleton": predictor.skeleton_name, "cube_mm": predictor.cube_mm}
    if choice.shares:
        extra["inside_hand_by_hand"] = choice.shares
    extra |= {
        "frames_unreadable": unreadable,
        # Reading and predicting, with --hand=auto both hands where both were predicted; not
        # compiling, nor drawing and writing pictures.
        "frames_per_second": len(writer.latency) / seconds if writer.latency else None,
        "hand": choice.hands[0],
        "centre": predictor.centre_source if centres is None else "file",
        "centre_model": predictor.centre_model or None if centres is None else None,
        "passes": passes,
        "depth_unit": depth_unit,
        "camera": np.round(camera.astype(float), 4).tolist(),
        "pixels": size,
    }
    summary = writer.close(extra)
    if stopped is not None:
        what = str(stopped) or "interrupted"
        raise type(stopped)(f"{what}; the {writer.frames} frames before it are in {out}")
    return summary


def _see(
    predictor: Predictor,
    path: Path,
    depth: np.ndarray,
    camera: np.ndarray,
    centre: np.ndarray | None,
    passes: int,
    hands: tuple[str, ...],
) -> dict[str, Prediction | None]:
    """One frame as each of `hands`, all drawn on the same square."""
    import numpy as np

    from hpe_jax.datasets.patches import outside_frame

    if centre is not None and outside_frame(centre, camera, depth.shape):
        where = np.round(centre).tolist()
        raise InputError(f"{path}: its centre {where} mm is outside the frame")
    try:
        found = {h: predictor(depth, camera, hand=h, centre=centre, passes=passes) for h in hands}
    except InputError as error:
        unit = "--depth_unit says how many mm a count is"
        raise InputError(f"{path}: {error}; {unit}") from error
    if (seen := found[hands[0]]) is not None:
        found = {h: p and replace(p, view=seen.view) for h, p in found.items()}
    return found


def main(argv: list[str]) -> int:
    """Exit status of the command `argv`: 2 and one line on stderr for bad input."""
    return run_command(
        argv,
        make_flags(),
        _run,
        help_text=__doc__ or "",
        instead="frames are given with --input=FILE, DIR or 'DIR/PATTERN*'",
    )


def _run(given: flags.FlagValues) -> None:
    # Imported late, so that --help and a mistyped flag answer at once.
    import numpy as np

    from hpe_jax.datasets.centres import read_centres
    from hpe_jax.datasets.depth_io import list_frames
    from hpe_jax.recording import PICTURES

    if given.artifact:
        raise InputError("--artifact: not built yet, expected --workdir=DIR of a training run")
    for name in ("workdir", "input", "out", "camera"):
        if not given[name].value:
            raise InputError(f"--{name}: missing, see --help")
    camera = np.array(parse_camera(given.camera), np.float32)
    if not 0 < given.depth_unit < float("inf"):
        raise InputError(f"--depth_unit={given.depth_unit:g}: expected a positive number of mm")
    if given.cube_mm is not None and not 0 < given.cube_mm < float("inf"):
        raise InputError(f"--cube_mm={given.cube_mm:g}: expected a positive number of mm")
    if given.centres and given.centre_model:
        raise InputError("--centres and --centre_model: expected one of them")
    frames, out = list_frames(given.input), Path(given.out)
    if frames[0].parent.resolve() == (out / PICTURES).resolve():
        raise InputError(f"--input={given.input}: pictures of --out={out} would replace it")
    centres = None
    if given.centres:
        centres = read_centres(
            given.centres, y_up=given.centres_y_up, frames=len(frames), camera=camera
        )

    from hpe_jax.camera import CAMERAS
    from hpe_jax.predictor import Predictor
    from hpe_jax.process import use_cache
    from hpe_jax.training.checkpoints import load_model

    # A checkpoint that cannot be read ends in one line; the reader would warn of it before.
    logging.set_verbosity(logging.FATAL)
    use_cache()
    config, variables = load_model(given.workdir)
    data = config.get("data", {})
    if data.get("whole", False) or data.get("target", "joints") == "centre":
        raise InputError(
            f"--workdir={given.workdir}: finds hand centres, expected a run trained for joints; "
            "this one is for --centre_model"
        )
    kind = data.get("centre", "com")
    if kind in ("file", "gt") and not (given.centres or given.centre_model):
        print(
            f"note: the model was trained on other centres (data.centre={kind}) than those of com",
            file=sys.stderr,
        )
    predictor = Predictor(config, variables, given.centre_model or "", given.cube_mm)
    if CAMERAS[config.data.dataset].left and not given["hand"].present:
        print(
            "note: right hands are expected; the model's data set shows left ones (--hand=left)",
            file=sys.stderr,
        )
    summary = predict_frames(
        predictor,
        frames, camera, out, depth_unit=given.depth_unit, hand=given.hand, centres=centres,
        passes=given.passes, skip_unreadable=given.skip_unreadable, pictures=given.pictures,
    )  # fmt: skip
    print(report(summary, out, auto=given.hand == "auto"))


def report(summary: dict[str, Any], out: Path, *, auto: bool) -> str:
    """What the terminal is told."""
    from hpe_jax.metrics.inside import HAND_CM2

    odd = doubt(summary["camera"], summary["pixels"])
    lines = [odd] if odd else []
    if auto:
        shares = " and ".join(f"{v:.1%} as {k}" for k, v in summary["inside_hand_by_hand"].items())
        lines.append(
            f"taken for a {summary['hand']} hand: joints inside the hand {shares} "
            "where both were tried"
        )
        right, left = summary["inside_hand_by_hand"].values()
        if abs(right - left) < UNSURE or summary["frames"] < FEW:
            lines.append("that few frames or so small a difference may mislead: --hand says which")
    none = summary["frames_without_hand"]
    if none:
        lines.append(f"{none} of {summary['frames']} frames show no hand or were unreadable")
    if summary["inside_hand"] is not None:
        lines.append(
            f"{summary['frames']} frames, {summary['inside_hand']:.1%} of the joints inside the "
            f"hand, {summary['latency_ms']:.1f} ms a frame, "
            f"{summary['frames_per_second']:.1f} frames a second"
        )
        if odd_size := summary["frames_of_odd_size"]:
            low, high = HAND_CM2
            lines.append(
                f"in {odd_size} frames what was taken for the hand shows less than {low:g} or more "
                f"than {high:g} cm2 (seen_cm2): is it one?"
            )
        distance, unit = summary["distance_mm"], summary["depth_unit"]
        if not USUAL[0] < distance < USUAL[1]:
            lines.append(
                f"the hand is {distance:,.0f} mm from the camera, a count of depth taken for "
                f"{unit:g} mm: is --depth_unit right?"
            )
    return "\n".join([*lines, f"written to {out}"])


def make_flags() -> flags.FlagValues:
    """The command line; values of its own, apart from those of other commands."""
    values = flags.FlagValues()
    text = {
        "workdir": "folder of a training run; its latest checkpoint is used",
        "artifact": "an exported model instead of --workdir; not built yet",
        "input": "a depth frame, or a folder or 'FOLDER/PATTERN*' of them by names and numbers: "
        "16-bit or NYU's PNG, .npy",
        "centres": "hand centres: a text file of 'x y z' in mm or 'invalid' a line, or A2J's .mat",
        "centre_model": "folder of a run of centre_*.py or detector_*.py that finds hand centres",
        "out": "folder for joints.jsonl, predictions.txt, summary.json and pictures",
    }
    for name, meaning in text.items():
        flags.DEFINE_string(name, None, meaning, values)
    switches = {
        "centres_y_up": (False, "y of --centres points up, as in NYU's published text files"),
        "skip_unreadable": (
            False,
            "report frames that are unreadable, or empty about their centre of --centres, and go "
            "on, instead of stopping",
        ),
        "pictures": (True, "draw overlays and an animation, which takes longer than a small model"),
    }
    for name, (default, meaning) in switches.items():
        flags.DEFINE_bool(name, default, meaning, values)
    flags.DEFINE_list("camera", None, "fx,fy,cx,cy of the frames in pixels, y down", values)
    flags.DEFINE_float(
        "depth_unit", 1.0, "mm for one count of a 16-bit PNG or .npy", None, None, values
    )
    flags.DEFINE_float(
        "cube_mm", None, "edge of the hand's cube, if not the model's: a smaller hand's is smaller",
        None, None, values,
    )  # fmt: skip
    flags.DEFINE_enum(
        "hand",
        "right",
        HANDS,
        "which hand frames show (ICVL's: left); auto tries both on the first 100 frames",
        values,
    )
    flags.DEFINE_integer(
        "passes", 1, "2 predicts again about the mean of the joints found first", 1, 2, values
    )
    return values


if __name__ == "__main__":
    sys.exit(main(sys.argv))
