"""What is measured: each module runs alone, `python -m tests.bench.NAME`."""
