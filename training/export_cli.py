"""`genu-train export --system`: a system of a cross-validated run as a bundle that the service loads."""

import argparse
from pathlib import Path

from inference.errors import UsageError


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
        from training.pain_export import exportable

        raise UsageError(f"{run} has several systems: name one with --system: {', '.join(exportable(run)) or 'none'}.")
    return kind is not None


def export(options: argparse.Namespace) -> None:
    """Write the bundle.

    Raises:
        UsageError, DataError, BundleError: as `training.pain_export.export_run`.
    """
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
    if not manifest.deployed_use:
        print(f"its terms exclude use in a running service ({manifest.licence}): see allow_undeployed_bundles")
