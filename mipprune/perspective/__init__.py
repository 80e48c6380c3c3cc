"""The perspective of a ridge term with a count, in closed form.

One object carries the whole library, the term ``a ||w||^2 / y + b y`` of a group of
weights w and its indicator y, under |w_i| <= M_i y and 0 <= y <= 1. This package is the
one place that defines its minimum over y, the optimal y, gradient, proximal operator and
conjugate. Functions named ``term_*`` take the coefficients (a, b); those without the
prefix take ``alpha`` in (0, 1) and use (alpha, 1 - alpha). ``segment_*`` work on groups
scattered over one flat vector.
"""

from mipprune.perspective._closed_form import (
    CASE_BOUND,
    CASE_NORM,
    CASE_RIDGE,
    case,
    conjugate,
    indicator,
    term_case,
    term_conjugate,
    term_indicator,
    term_joint,
    term_value,
    value,
)
from mipprune.perspective._prox import prox, term_prox
from mipprune.perspective._segment_prox import segment_prox
from mipprune.perspective._segments import (
    SegmentLayout,
    SegmentTerms,
    segment_terms,
    segment_value,
)

__all__ = [
    "CASE_BOUND",
    "CASE_NORM",
    "CASE_RIDGE",
    "SegmentLayout",
    "SegmentTerms",
    "case",
    "conjugate",
    "indicator",
    "prox",
    "segment_prox",
    "segment_terms",
    "segment_value",
    "term_case",
    "term_conjugate",
    "term_indicator",
    "term_joint",
    "term_prox",
    "term_value",
    "value",
]
