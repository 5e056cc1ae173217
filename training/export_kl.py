"""The bundle of a run of KL graders: `genu-train export`."""

from pathlib import Path

from inference.bundle import Bundle
from inference.conformal import Conformal
from training import runs
from training.card import model_card
from training.export import Parts, write_bundle
from training.unlike import read_familiar


def export_run(run: runs.Run, out: Path) -> Bundle:
    """Write the bundle of a KL run that was evaluated.

    Raises:
        DataError: it was not evaluated with these networks, is not fitted to its end, or gets too large.
    """
    config, metrics = run.config, runs.read_metrics(run)
    networks = runs.networks(run)
    conformal, limit = metrics.get("conformal"), metrics.get("unlike")
    return write_bundle(
        Parts(
            name=config.name,
            version=config.version,
            synthetic=False,
            networks=[(member.name, member.backbone, member.spec, model) for member, model in networks],
            temperature=metrics["temperature"],
            decoder=metrics["decoder"],
            metrics=metrics,
            training={
                "configuration": (run.folder / "config.toml").read_text("utf-8"),
                "data": "Chen, Knee Osteoarthritis Severity Grading Dataset, DOI 10.17632/56rmx5bjcr.1, CC BY 4.0",
                "initial_weights": [path.name for path in run.initial_weights],
                "licence": "Apache-2.0",
            },
            card=model_card(config, metrics, metrics["knees"]),
            conformal=None if conformal is None else Conformal.from_json(conformal),
            familiar=None if limit is None else read_familiar(run.folder, limit, networks),
            unlike_limit=None if limit is None else float(limit["limit"]),
        ),
        out,
    )
