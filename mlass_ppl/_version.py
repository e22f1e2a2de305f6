"""The version of mlass_ppl: the build reads it from here."""

__version__ = "0.2.0"
