"""Finding circuits and judging them."""

from circuits.search.acdc.descent import acdc, acdc_thresholds
from circuits.search.discover import Discovery, discover
from circuits.search.judging.compare import Comparison, compare
from circuits.search.judging.curves import Curve, faithfulness_curve
from circuits.search.judging.evaluate import evaluate, faithfulness
from circuits.search.judging.roc import Roc, node_scores, roc
from circuits.search.judging.verdict import Verdict
from circuits.search.mechanisms.induction import find_induction_circuit
from circuits.search.mechanisms.recall import find_factual_recall_circuit
from circuits.search.methods.method import Method
from circuits.search.methods.pruning import prune_edges
from circuits.search.methods.shrinking import shrink
from circuits.search.methods.table import METHODS, register_method
from circuits.search.screening import Screening, screen_then_verify

__all__ = [
    "METHODS",
    "Comparison",
    "Curve",
    "Discovery",
    "Method",
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
    "register_method",
    "roc",
    "screen_then_verify",
    "shrink",
]
