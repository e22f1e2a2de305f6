"""Typed exceptions. Every message says what was expected, what came and the likeliest fix."""

from __future__ import annotations


class MlassError(Exception):
    """Base of every error that this library raises on purpose."""


class GraphError(MlassError):
    """A program or a mixing graph is malformed."""


class TableError(MlassError):
    """Counts or a table do not fit: shape, recipe, codec, coverage."""


class PlanError(MlassError):
    """An engine cannot be planned on this graph within the given limits."""


class EngineError(MlassError):
    """An engine was asked something that it cannot answer, or was given ill-shaped input."""


class UnseenToken(MlassError):
    """An observed token never occurs in its table, so the model gives it no probability."""


class PriorError(MlassError):
    """A prior does not fit its source: alphabet, length, state."""


class CodecError(MlassError):
    """A codec was given tokens or signals that it cannot take."""


class SignalError(MlassError):
    """A signal (image, audio) is malformed: shape, NaN, range, unreadable file."""


class BundleError(MlassError):
    """A bundle is missing, corrupt or of another kind than the one asked for."""


class DataError(MlassError):
    """A data set is missing or malformed."""


class OptionError(MlassError):
    """An option has an unknown or impossible value."""


class ConvergenceWarning(UserWarning):
    """An iterative engine gave an answer before it settled."""
