"""Sparse variable elimination, one clique after another: the inside of `Exact`."""
