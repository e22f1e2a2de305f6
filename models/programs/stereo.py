"""Two sources heard on two channels, louder on one side each. The two observed mixtures and their
common sources make a cycle: Exact() or LoopyBP()."""

from mlass_ppl import mix, source


def stereo():
    first, second = source("first"), source("second")
    left = mix("left", first, second, weights=(0.7, 0.3))
    right = mix("right", first, second, weights=(0.3, 0.7))
    return left, right
