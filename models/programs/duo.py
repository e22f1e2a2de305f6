"""Two digits, one table: LASS's graph and, for two sources, MLASS's as well."""

from mlass_ppl import mix, source


def duo():
    return mix("mixture", source("left"), source("right"))
