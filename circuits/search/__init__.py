"""Finding circuits and judging them."""

from circuits.search.acdc import acdc, acdc_thresholds
from circuits.search.compare import Comparison, compare
from circuits.search.curves import Curve, faithfulness_curve
from circuits.search.discover import Discovery, discover
from circuits.search.evaluate import evaluate, faithfulness
from circuits.search.factual_recall import find_factual_recall_circuit
from circuits.search.induction import find_induction_circuit
from circuits.search.pruning import prune_edges
from circuits.search.roc import Roc, node_scores, roc
from circuits.search.screening import Screening, screen_then_verify
from circuits.search.shrinking import shrink
from circuits.search.verdict import Verdict

__all__ = [
    "Comparison",
    "Curve",
    "Discovery",
    "Roc",
    "Screening",
    "Verdict",
    "acdc",
    "acdc_thresholds",
    "compare",
    "discover",
    "evaluate",
    "faithfulness",
    "faithfulness_curve",
    "find_factual_recall_circuit",
    "find_induction_circuit",
    "node_scores",
    "prune_edges",
    "roc",
    "screen_then_verify",
    "shrink",
]
