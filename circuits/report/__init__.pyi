"""The names of the room, once: `circuits/report/__init__.py` reads them from here, and so do type checkers."""

from .blocks import (
    Chart as Chart,
    Facts as Facts,
    Grid as Grid,
    Heatmap as Heatmap,
    Paragraphs as Paragraphs,
    Section as Section,
)
from .closer import Closer as Closer, Looked as Looked, look_closer as look_closer
from .folder import Saved as Saved, read_saved as read_saved
from .page import Page as Page
from .run import run_page as run_page
from .sections.explained import (
    explanation_section as explanation_section,
    explanations_section as explanations_section,
    module_section as module_section,
)
from .sections.explorer import explorer_section as explorer_section
from .sections.judged import verdict_section as verdict_section
from .sections.lenses import lens_section as lens_section
from .sections.made import made_section as made_section
from .sections.probed import (
    probes_section as probes_section,
    property_use_section as property_use_section,
    tree_probes_section as tree_probes_section,
)
from .sections.ranked import knockout_section as knockout_section, rankings_section as rankings_section
from .sections.scored import head_scores_section as head_scores_section
from .sections.studied import study_section as study_section
from .sections.traced import trace_section as trace_section, traces_section as traces_section
