"""Published checkpoints of other works, made into bundles; no code of theirs, and none in them."""

from .lass import import_lass_mnist as import_lass_mnist
