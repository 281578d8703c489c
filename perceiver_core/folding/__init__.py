"""Folded inference: what a model computes, with all that is constant computed once.

The algebra is exact: folded and plain models differ by rounding alone. Plain modules stay the definition.
"""

from perceiver_core.folding.engine import Folded
from perceiver_core.folding.heads import fold
from perceiver_core.folding.parts import FoldError

__all__ = ["FoldError", "Folded", "fold"]
