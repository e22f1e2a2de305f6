"""Three digits as a chain of partial mixtures: MLASS's graph."""

from mlass_ppl import mix, source


def trio():
    first = source("first")
    second = source("second")
    pair = mix("pair", first, second)
    return mix("mixture", pair, source("third"))
