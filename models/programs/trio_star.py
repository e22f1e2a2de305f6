"""Three digits, each taken out on its own: MLASS-PE's graph; use it with --infer extractor."""

from mlass_ppl import mix, source


def trio():
    first, second, third = source("first"), source("second"), source("third")
    return (
        mix("heard_first", first, hidden=[second, third]),
        mix("heard_second", second, hidden=[first, third]),
        mix("heard_third", third, hidden=[first, second]),
    )
