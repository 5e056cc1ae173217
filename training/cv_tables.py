"""Tables of what was measured, for CSV files."""

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from training.resampling import Estimate


def flat(rows: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
    """A table in which each estimate is three columns."""
    result = []
    for row in rows:
        found: dict[str, Any] = {}
        for name, value in row.items():
            if isinstance(value, Estimate):
                found |= {name: value.value, f"{name}_low": value.low, f"{name}_high": value.high}
            else:
                found[name] = value
        result.append(found)
    return pl.DataFrame(result, infer_schema_length=None)
