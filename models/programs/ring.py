"""Three sources, of which each pair is observed mixed: a loop, for Exact() or LoopyBP()."""

from mlass_ppl import mix, source


def ring():
    a, b, c = source("a"), source("b"), source("c")
    return mix("a_b", a, b), mix("b_c", b, c), mix("c_a", c, a)
