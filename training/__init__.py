"""Offline: a cohort in, a model bundle out; resumable."""
