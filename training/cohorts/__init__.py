"""Cohorts: labels and inclusion rules per source, as data (`genu-train cohort mrkr | oai-xr | table`).

Each source gives one row per knee of an image with everything that rules may ask for; the rules are a TOML file; what
each of them drops is counted and drawn. The rows that stay are `cohort.parquet` (`training.cohorts.rows`).
"""
