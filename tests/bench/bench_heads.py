"""One fit of each head at the size of four folds of the published cohort: 26,500 knees, 768 columns of made numbers.

python -m tests.bench.bench_heads [ridge corn boosting]
"""

import resource
import sys
import time

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from training.regression_boosting import BoostingHead
from training.regression_corn import CornHead
from training.regression_ridge import RidgeHead
from training.regression_samples import Head, Samples

KNEES, COLUMNS = 26_500, 768
HEADS: dict[str, Head] = {
    "ridge": RidgeHead(),
    "corn": CornHead(("image",), (0.0, 10.0)),
    "boosting": BoostingHead(),
}


def main(names: list[str]) -> None:
    """Print seconds of one core and the memory of the process so far."""
    rng = np.random.default_rng(0)
    image = rng.normal(size=(KNEES, COLUMNS)).astype(np.float32)
    pain = 4 + 0.5 * image[:, :20].sum(1) / np.sqrt(5) + rng.normal(0, 2.5, KNEES)
    samples = Samples(
        knees=np.array([f"k{number}" for number in range(KNEES)]),
        patients=np.array([f"p{number // 2}" for number in range(KNEES)]),
        image=image,
        grades=rng.integers(0, 6, KNEES),
        age=np.full(KNEES, 60.0),
        sex=np.full(KNEES, "F"),
        race=np.full(KNEES, "A"),
    )
    for name in names or HEADS:
        began = time.process_time()
        fitted = HEADS[name].fit(samples, np.clip(np.rint(pain), 0, 10), 0)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        print(f"{name}: {time.process_time() - began:.1f} s, {memory} MB, {dict(fitted.chosen)}", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    with threadpool_limits(1):
        main(sys.argv[1:])
