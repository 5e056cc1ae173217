"""`genu-train export --system`: a system of a cross-validated run as a bundle that the service loads."""

import argparse
import sys
from pathlib import Path

from inference.errors import UsageError

_CLASSES = "classification"


def add_options(export: argparse.ArgumentParser) -> None:
    """The options of `export` for cross-validated runs, in a group of their own."""
    group = export.add_argument_group("a system of a cross-validated run")
    group.add_argument("--system", metavar="NAME", help="which of the run's systems")
    group.add_argument(
        "--weights", metavar="PATH", help="the backbone's weights, as for `embed` (default: those of the hub)"
    )
    group.add_argument("--name", help="the model's name in reports (default: made from the system's)")
    group.add_argument("--model-version", default="0.1.0", help="its version in reports (default: 0.1.0)")


def is_system(run: Path, system: str | None) -> bool:
    """Whether a system of a cross-validated run is meant, and not the KL grader of another run.

    Raises:
        UsageError: a system is named and the run is the grader's, or none is and it is not.
    """
    from training.cv_evidence import kind_of

    kind = kind_of(run)
    if kind is None and system is not None:
        raise UsageError(f"--system {system}: {run} is no cross-validated run; leave it away for the KL grader.")
    if kind is not None and system is None:
        able = ", ".join(_exportable(run, kind)) or "none"
        raise UsageError(f"{run} has several systems: name one with --system: {able}.")
    return kind is not None


def export(options: argparse.Namespace) -> None:
    """Write the bundle.

    Raises:
        UsageError, DataError, BundleError: as `training.pain_export.export_run` and
            `training.slice_export.export_slices`.
    """
    from training.cv_evidence import kind_of

    if kind_of(options.run) == _CLASSES:
        _export_slices(options)
    else:
        _export_pain(options)
    _say_unfinished(options.run)


def _export_pain(options: argparse.Namespace) -> None:
    from training.pain_export import export_run

    bundle = export_run(
        options.run,
        options.system,
        options.out,
        weights=options.weights,
        name=options.name,
        version=options.model_version,
    )
    manifest, interval = bundle.manifest, bundle.manifest.calibration
    mark = ", SYNTHETIC" if manifest.synthetic else ""
    print(
        f"{manifest.name} {manifest.version} in {options.out}, digest {manifest.digest[:12]}{mark}; "
        f"interval {interval.low:+.1f} to {interval.high:+.1f} points ({interval.coverage:.0%})"
    )
    _say_terms(manifest.deployed_use, manifest.licence)


def _say_unfinished(run: Path) -> None:
    """What the run was asked for and has not: the card says so, too."""
    from training.cv_evaluate import figures_of, unfinished
    from training.cv_evidence import read_evidence

    if (missing := unfinished(figures_of(read_evidence(run)))) is not None:
        print(missing)


def _export_slices(options: argparse.Namespace) -> None:
    from training.slice_export import export_slices

    bundle = export_slices(
        options.run, options.system, options.out, lambda line: print(line, file=sys.stderr, flush=True),
        weights=options.weights, name=options.name, version=options.model_version,
    )  # fmt: skip
    manifest = bundle.manifest
    mark = ", SYNTHETIC" if manifest.synthetic else ""
    (*_, last) = manifest.metrics["interval"]["classes"]
    limit = "" if manifest.threshold is None else f", threshold {manifest.threshold:.3f}"
    print(
        f"{manifest.name} {manifest.version} in {options.out}, digest {manifest.digest[:12]}{mark}; intervals from "
        f"{manifest.calibration_patients} patients, {last['width']:.3f} wide in the mean{limit}"
    )
    _say_terms(manifest.deployed_use, manifest.licence)


def _exportable(run: Path, kind: str) -> tuple[str, ...]:
    if kind == _CLASSES:
        from training.slice_export import exportable as of_slices

        return of_slices(run)
    from training.pain_export import exportable

    return exportable(run)


def _say_terms(deployed_use: bool, licence: str) -> None:
    if not deployed_use:
        print(f"its terms exclude use in a running service ({licence}): see allow_undeployed_bundles")
