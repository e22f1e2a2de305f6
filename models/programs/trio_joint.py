"""Three digits and one table over all of them: LASS's graph; use it with --infer exact."""

from mlass_ppl import mix, source


def trio():
    return mix("mixture", source("first"), source("second"), source("third"))
