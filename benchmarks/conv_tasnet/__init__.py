"""Supervised regression, the peer of a generative separator: Conv-TasNet on the same songs.

python -m benchmarks.conv_tasnet --help
"""
