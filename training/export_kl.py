"""The bundle of a run of KL graders: `genu-train export`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inference.bundle import Bundle
from inference.conformal import Conformal
from inference.errors import DataError
from training import runs
from training.card import model_card
from training.config import DataAbout, RunConfig
from training.export import Parts, write_bundle
from training.unlike import read_familiar

_NOT_TOLD = "not told"


def export_run(run: runs.Run, out: Path) -> Bundle:
    """Write the bundle of a KL run that was evaluated.

    Raises:
        DataError: it was not evaluated with these networks, is not fitted to its end, or gets too large.
    """
    config, metrics = run.config, runs.read_metrics(run)
    networks = runs.networks(run)
    _check_figures(run, config, metrics)
    provenance = runs.provenance(run)
    about = provenance.about or DataAbout()
    conformal, limit = metrics.get("conformal"), metrics.get("unlike")
    return write_bundle(
        Parts(
            name=config.name,
            version=config.version,
            synthetic=provenance.synthetic,
            networks=[(member.name, member.backbone, member.spec, model) for member, model in networks],
            temperature=metrics["temperature"],
            decoder=metrics["decoder"],
            metrics=metrics,
            training={
                "configuration": (run.folder / "config.toml").read_text("utf-8"),
                "data": f"{about.title}, {about.licence or _NOT_TOLD}" if about.title else _NOT_TOLD,
                "data_told": provenance.about is not None,
                "initial_weights": [name for name, _ in provenance.initial],
                "initial_weights_sha256": [digest for _, digest in provenance.initial],
                "licence": about.bundle_licence or _NOT_TOLD,
            },
            card=model_card(config, metrics, metrics["knees"], provenance),
            conformal=None if conformal is None else Conformal.from_json(conformal),
            familiar=None if limit is None else read_familiar(run.folder, limit, networks),
            unlike_limit=None if limit is None else float(limit["limit"]),
        ),
        out,
    )


def _check_figures(run: runs.Run, config: RunConfig, metrics: Mapping[str, Any]) -> None:
    """The configuration may have changed since, in what decides no weights."""
    ship = {member.name for member in config.members if member.ships}
    if metrics["decoder"] != config.decoder or set(metrics["members"]) != ship:
        raise DataError(
            f"{run.folder} was evaluated as {metrics['decoder']} of {', '.join(sorted(metrics['members']))}, its "
            f"configuration says {config.decoder} of {', '.join(sorted(ship))}: run `genu-train evaluate --run "
            f"{run.folder}` again."
        )
