"""What one would write in an afternoon: one file after another, in one process. The other side of `genu score`.

python -m tests.bench.naive BUNDLE OUT FILE...
"""

import sys
from datetime import datetime
from pathlib import Path

from dicom_templates.compose import ReportContext, compose
from inference.predictor import Predictor
from inference.reading import read_study


def main() -> None:
    """Score and write the same objects as `genu score`."""
    bundle, out, *files = map(Path, sys.argv[1:])
    out.mkdir(parents=True, exist_ok=True)
    predictor = Predictor.load([bundle])
    context = ReportContext(datetime.now().astimezone(), "naive", "2.25.1", "1")
    for file in files:
        study = read_study([file])
        composed = compose(predictor.score(study), [instance.header for instance in study.instances], context)
        for dataset in composed.all:
            dataset.save_as(out / f"{dataset.SOPInstanceUID}.dcm", enforce_file_format=True)


if __name__ == "__main__":
    main()
