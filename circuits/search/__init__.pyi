"""The names of the room, once: `circuits/search/__init__.py` reads them from here, and so do type checkers."""

from .acdc.descent import acdc as acdc, acdc_thresholds as acdc_thresholds
from .discover import Discovery as Discovery, discover as discover
from .judging.compare import Comparison as Comparison, compare as compare
from .judging.curves import Curve as Curve, faithfulness_curve as faithfulness_curve
from .judging.evaluate import evaluate as evaluate, faithfulness as faithfulness
from .judging.roc import Roc as Roc, node_scores as node_scores, roc as roc
from .judging.verdict import Verdict as Verdict
from .mechanisms.induction import find_induction_circuit as find_induction_circuit
from .mechanisms.letter_results import LetterHeads as LetterHeads
from .mechanisms.letters import find_letter_heads as find_letter_heads
from .mechanisms.recall import find_factual_recall_circuit as find_factual_recall_circuit
from .methods.method import Method as Method
from .methods.pruning import prune_edges as prune_edges
from .methods.refining import refine as refine
from .methods.shrinking import shrink as shrink
from .methods.table import METHODS as METHODS, register_method as register_method
from .screening import Screening as Screening, screen_then_verify as screen_then_verify
from .searching import Searching as Searching
from .stability.repeating import repeat_search as repeat_search
from .stability.results import Recurrence as Recurrence
from .studying.asked import StudyTask as StudyTask
from .studying.results import StudiedCircuit as StudiedCircuit, Study as Study, StudyPlan as StudyPlan
from .studying.run import study as study
