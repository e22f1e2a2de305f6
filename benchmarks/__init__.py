"""Side-by-side timings of one token position: `python -m benchmarks`."""
