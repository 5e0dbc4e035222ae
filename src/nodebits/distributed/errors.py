"""What goes wrong between processes."""

from __future__ import annotations

from nodebits.core.errors import NodebitsError


class RankError(NodebitsError, RuntimeError):
    """Another rank ended, or did not answer in time."""
