"""Three sources of unequal weight, as a chain: half the mixture is the first, a fifth the last."""

from mlass_ppl import mix, source


def fading():
    pair = mix("pair", source("loud"), source("middle"), weights=(0.625, 0.375))
    return mix("mixture", pair, source("soft"), weights=(0.8, 0.2))
