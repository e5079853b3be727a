"""Score prediction files as the field does; runs on the host, touches no accelerator.

    python -m hpe_jax.evaluate --dataset=nyu --groundtruth=groundtruth.txt \\
        --predictions=mine.txt,theirs.txt --out=results

Prints a table, or with `--json` one JSON object `{"<file name>": {...}}`; success rates are
fractions (0-1) of frames whose worst joint is within the threshold. `--out` keeps `metrics.json`,
`success_curve.png` and `per_joint.png`, all files in one plot.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from hpe_jax.command import run_command
from hpe_jax.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from hpe_jax.camera_flag import Camera
    from hpe_jax.metrics.files import Format, JointFile
    from hpe_jax.metrics.protocols import Protocol

FAR_MM = 1e9
"""Nothing that a camera sees is as far away."""


def define_flags() -> flags.FlagValues:
    """The command's flags, apart from absl's global ones, which other commands use too."""
    own = flags.FlagValues()
    flags.DEFINE_enum(
        "dataset",
        None,
        ["nyu", "icvl", "msra"],
        "whose camera, joints and subjects to use",
        flag_values=own,
    )
    flags.DEFINE_list(
        "groundtruth",
        None,
        "ground truth; several files follow each other (ICVL's sequences); for nyu also the "
        "published test/joint_data.mat, whatever the format",
        flag_values=own,
    )
    flags.DEFINE_enum(
        "groundtruth_format",
        "uvd",
        ["uvd", "xyz"],
        "what the ground truth holds: pixels and mm, as published, or mm",
        flag_values=own,
    )
    flags.DEFINE_list("predictions", None, "prediction files, separated by commas", flag_values=own)
    flags.DEFINE_list(
        "format",
        "uvd",
        "what the prediction files hold, uvd (pixels and mm) or xyz (mm); one for all or for each",
        flag_values=own,
    )
    flags.DEFINE_list(
        "camera",
        None,
        "fx,fy,cx,cy in pixels; the default is that of the published tables (nyu "
        "588.03,587.07,320,240; icvl 240.99,240.96,160,120; msra 241.42,241.42,160,120). A "
        "negative fy says that xyz predictions have y up; for uvd its sign changes nothing",
        flag_values=own,
    )
    flags.DEFINE_list(
        "centre",
        "unknown",
        "where the predictions' hand centres come from (gt, com, refined, ...), kept with the "
        "result; one for all or for each",
        flag_values=own,
    )
    flags.DEFINE_string("out", None, "folder for metrics.json and the plots", flag_values=own)
    flags.DEFINE_bool("json", False, "print JSON instead of a table", flag_values=own)
    return own


def evaluate(
    protocol: Protocol,
    truth: JointFile,
    predictions: JointFile,
    form: Format = "uvd",
    camera: Camera | None = None,
    centre: str = "unknown",
    truth_form: Format = "uvd",
) -> tuple[dict[str, Any], np.ndarray]:
    """Score one file.

    Returns:
      the result as commands print it, and the per-joint errors (N, J) in mm.

    Raises:
      InputError: other frames than the ground truth's, or numbers too large to be scored.
    """
    import numpy as np

    from hpe_jax.metrics import protocols
    from hpe_jax.metrics.errors import errors, split_summary, summary

    protocols.check_same_frames(predictions, truth)
    camera = camera or protocol.camera
    true = protocols.to_xyz(truth.values, camera, truth_form)
    pred = protocols.to_xyz(predictions.values, camera, form)
    for file, joints in ((truth, true), (predictions, pred)):
        if not (np.abs(joints) < FAR_MM).all():
            raise InputError(f"{file.path}: its numbers are too large to be scored")
    parts = protocol.slices(len(true))
    result = {
        "dataset": protocol.name,
        "split": "test" if parts else "not the published test split",
        "centre": centre,
        "format": form,
        "camera": list(camera),
        "joints": list(protocol.skeleton.joints),
        **summary(pred, true),
        "parts": split_summary(pred, true, parts),
    }
    _check_reading(predictions, true, form, camera, result["mean_error_mm"])
    return result, errors(pred, true)


def table(results: dict[str, dict[str, Any]]) -> str:
    """The results as lines of text, one file a line."""
    first = next(iter(results.values()))
    parts = list(first["parts"]) if len(first["parts"]) <= 2 else []
    common, differing = _told(results)
    head = ["file", *differing]
    head += ["mean", "median", "<=20", "<=40", "auc", "aligned", "transl.", *parts]
    rows = [
        [
            name,
            *(r[key] for key in differing),
            *(f"{r[k]:.3f}" for k in ("mean_error_mm", "median_error_mm")),
            *(f"{100 * r[k]:.2f}" for k in ("success_20mm", "success_40mm")),
            f"{r['auc_0_80']:.4f}",
            *(f"{r[k]:.3f}" for k in ("mean_aligned_mm", "translation_mm")),
            *(f"{r['parts'][part]['mean_error_mm']:.3f}" for part in parts),
        ]
        for name, r in results.items()
    ]
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    lines = [
        f"{first['dataset']}, {first['split']}, {first['frames']} frames, "
        f"{len(first['joints'])} joints, camera {','.join(f'{c:g}' for c in first['camera'])}"
        f"{common}",
        "mm; <=20 and <=40: % of frames whose worst joint is within 20, 40 mm",
        "",
    ]
    for row in [head, *rows]:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join(cells))
    return "\n".join(lines)


def _told(results: dict[str, dict[str, Any]]) -> tuple[str, list[str]]:
    """Format and centre as a heading says them, and which of them differ from file to file."""
    values = {key: {r[key] for r in results.values()} for key in ("format", "centre")}
    common = [f", {key} {min(v)}" for key, v in values.items() if len(v) == 1]
    return "".join(common), [key for key, v in values.items() if len(v) > 1]


def main(argv: list[str]) -> int:
    """Exit status of the command `argv`: 2 and one line on stderr for bad input."""
    return run_command(
        argv,
        define_flags(),
        _run,
        help_text=__doc__ or "",
        instead="files are given with --predictions=FILE,FILE",
    )


def _run(given: flags.FlagValues) -> None:
    # Imported late, so that --help and a mistyped flag answer at once.
    from hpe_jax.camera_flag import parse_camera
    from hpe_jax.metrics.files import doubt
    from hpe_jax.metrics.protocols import PROTOCOLS

    for name in ("dataset", "groundtruth", "predictions"):
        if not given[name].value:
            raise InputError(f"--{name}: missing, see --help")
    camera = parse_camera(given.camera, negative_fy=True) if given.camera is not None else None
    protocol = PROTOCOLS[given.dataset]
    for name, paths in (("groundtruth", given.groundtruth), ("predictions", given.predictions)):
        if not all(paths):
            raise InputError(f"--{name}={','.join(paths)}: a name is empty")
    truth, truth_form = _groundtruth(protocol, given.groundtruth, given.groundtruth_format)
    if (odd := doubt(truth.values, truth_form)) is not None:
        print(f"warning: {truth.path}: {odd} (--groundtruth_format)", file=sys.stderr)
    if len(truth.values) != protocol.frames:
        print(
            f"note: {truth.path} has {len(truth.values)} frames, the {protocol.name} test split "
            f"{protocol.frames}: not comparable with published tables, no split by subject",
            file=sys.stderr,
        )
    names = _names(given.predictions)
    formats: dict[str, Format] = {"uvd": "uvd", "xyz": "xyz"}
    if not set(given.format) <= set(formats):
        raise InputError(f"--format={','.join(given.format)}: expected uvd or xyz")
    forms = [formats[form] for form in _each("format", given.format, len(names))]
    centres = _each("centre", given.centre, len(names))
    results, errors = {}, {}
    for (name, path), form, centre in zip(names.items(), forms, centres, strict=True):
        predictions = protocol.read(path, form)
        results[name], errors[name] = evaluate(
            protocol, truth, predictions, form, camera, centre, truth_form
        )
    if given.out:
        _write(Path(given.out), results, errors, protocol)
    print(json.dumps(results, indent=2) if given.json else table(results))


def _groundtruth(protocol: Protocol, paths: list[str], form: Format) -> tuple[JointFile, Format]:
    """What the flags name, and its format: text files, or NYU's labels as they are published."""
    from hpe_jax.metrics.files import JointFile
    from hpe_jax.metrics.protocols import read_groundtruth, to_uvd

    if not any(path.endswith(".mat") for path in paths):
        return read_groundtruth(protocol, paths, form), form
    if protocol.name != "nyu" or len(paths) > 1:
        raise InputError(
            f"--groundtruth={','.join(paths)}: expected text files, or NYU's joint_data.mat alone"
        )
    from hpe_jax.datasets.nyu import read_labels

    # As uvd: the sign of the camera's fy says which way y goes in the xyz of other files only.
    return JointFile(paths[0], to_uvd(read_labels(Path(paths[0])), protocol.camera)), "uvd"


def _write(
    out: Path, results: dict[str, Any], errors: dict[str, np.ndarray], protocol: Protocol
) -> None:
    from hpe_jax.atomic import write_atomic
    from hpe_jax.metrics import plots
    from hpe_jax.metrics.errors import success

    kept = {
        name: {
            **result,
            "success_curves": {
                per: success(errors[name], per=per).tolist()  # 0, 1 ... 80 mm
                for per in ("worst", "mean", "joint")
            },
        }
        for name, result in results.items()
    }
    write_atomic(out / "metrics.json", json.dumps(kept, indent=2) + "\n")
    first = next(iter(results.values()))
    differs = "centre" in _told(results)[1]
    title = f"{protocol.name}, {first['frames']} frames"
    title += "" if differs else f", centre {first['centre']}"
    short = {name: Path(name).stem for name in errors}
    unlike = len(set(short.values())) == len(short)
    shown = {
        (short[name] if unlike else name) + (f" ({results[name]['centre']})" if differs else ""): e
        for name, e in errors.items()
    }
    plots.success_curve(out / "success_curve.png", shown, title)
    plots.per_joint(out / "per_joint.png", shown, protocol.skeleton.joints, title)


def _each(flag: str, values: list[str], count: int) -> list[str]:
    """One value for each of so many files, of a flag that gives one for all or for each."""
    if len(values) not in (1, count) or not all(values):
        raise InputError(
            f"--{flag}={','.join(values)}: expected one for all prediction files or one for each "
            f"of the {count}"
        )
    return values * count if len(values) == 1 else values


def _names(paths: list[str]) -> dict[str, str]:
    """File name -> path; the whole path where two files have the same name."""
    base = [Path(path).name for path in paths]
    names = {p if base.count(b) > 1 else b: p for p, b in zip(paths, base, strict=True)}
    if len(names) != len(paths):
        raise InputError(f"--predictions={','.join(paths)}: a file is given twice")
    return names


def _check_reading(
    predictions: JointFile, true: np.ndarray, form: Format, camera: Camera, mean: float
) -> None:
    """Say so if the file fits far better in the other format, with other signs or in metres."""
    import numpy as np

    from hpe_jax.metrics.errors import errors
    from hpe_jax.metrics.protocols import to_xyz

    turned = (camera[0], -camera[1], *camera[2:])
    readings: tuple[tuple[Format, Camera, int], ...] = (
        ("uvd", camera, 1), ("xyz", camera, 1), ("xyz", turned, 1), ("xyz", turned, -1)
    )  # fmt: skip
    tried = [(f, c, z, mm) for mm in (1.0, 1000.0) for f, c, z in readings]
    means = []
    for f, c, z, mm in tried:
        units = np.array([1, 1, mm] if f == "uvd" else [mm, mm, z * mm])
        means.append(errors(to_xyz(predictions.values * units, c, f), true).mean())
    best = int(np.argmin(means))
    if means[best] < mean / 2:
        other, sign, z, mm = tried[best]
        advice = [f"give --format={other}"] if other != form else []
        advice += ["change the sign of fy in --camera"] if sign != camera else []
        advice += ["write z away from the camera, positive"] if z < 0 else []
        advice += ["write millimetres, not metres"] if mm != 1.0 else []
        print(
            f"warning: {predictions.path}: {mean:.1f} mm, but {means[best]:.1f} mm if you "
            f"{' and '.join(advice)}",
            file=sys.stderr,
        )


if __name__ == "__main__":
    sys.exit(main(sys.argv))
