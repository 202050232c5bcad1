"""The public names, once: `circuits/__init__.py` reads them from here, and so do type checkers."""

from . import (
    attribution as attribution,
    concepts as concepts,
    errors as errors,
    graph as graph,
    heads as heads,
    lenses as lenses,
    models as models,
    patching as patching,
    plots as plots,
    probes as probes,
    report as report,
    runs as runs,
    search as search,
    tasks as tasks,
    uses as uses,
)
from .attribution import (
    EdgeScores as EdgeScores,
    attribute_edges as attribute_edges,
    attribute_nodes as attribute_nodes,
)
from .concepts import (
    ConceptTest as ConceptTest,
    tcav as tcav,
)
from .errors import (
    CircuitsError as CircuitsError,
)
from .graph import (
    Circuit as Circuit,
    Edge as Edge,
    Graph as Graph,
    Node as Node,
)
from .heads import (
    Tables as Tables,
    TrainingCurves as TrainingCurves,
    bigram_table as bigram_table,
    compress_heads as compress_heads,
    find_phase_change as find_phase_change,
    score_checkpoints as score_checkpoints,
    score_heads as score_heads,
    skip_trigrams as skip_trigrams,
    tables as tables,
)
from .lenses import (
    DirectLogits as DirectLogits,
    Explanations as Explanations,
    Lens as Lens,
    ModuleExplanation as ModuleExplanation,
    NeuronExplanation as NeuronExplanation,
    NeuronReport as NeuronReport,
    Triggers as Triggers,
    TunedLens as TunedLens,
    clamp as clamp,
    compare_lenses as compare_lenses,
    explain as explain,
    explain_module as explain_module,
    explain_neurons as explain_neurons,
    find_triggers as find_triggers,
    key_value_agreement as key_value_agreement,
    logit_lens as logit_lens,
    logits as logits,
    neuron as neuron,
    read_values as read_values,
    sub_updates as sub_updates,
    train_tuned_lens as train_tuned_lens,
)
from .models import (
    Edit as Edit,
    Model as Model,
    Run as Run,
    bundled_models as bundled_models,
    load_model as load_model,
)
from .patching import (
    ablate as ablate,
    attention as attention,
    attention_knockout as attention_knockout,
    causal_trace as causal_trace,
    order_of_terms as order_of_terms,
    patch_edges as patch_edges,
    patch_nodes as patch_nodes,
    patch_path as patch_path,
    remove_layers as remove_layers,
    run_circuits as run_circuits,
    self_repair as self_repair,
    trace_facts as trace_facts,
)
from .probes import (
    NeuronKnockout as NeuronKnockout,
    NeuronRankings as NeuronRankings,
    Probes as Probes,
    knock_out as knock_out,
    neuron_circuit as neuron_circuit,
    probe as probe,
    property_use as property_use,
    rank_neurons as rank_neurons,
)
from .search import (
    acdc as acdc,
    acdc_thresholds as acdc_thresholds,
    compare as compare,
    discover as discover,
    evaluate as evaluate,
    faithfulness_curve as faithfulness_curve,
    find_factual_recall_circuit as find_factual_recall_circuit,
    find_induction_circuit as find_induction_circuit,
    prune_edges as prune_edges,
    refine as refine,
    roc as roc,
    screen_then_verify as screen_then_verify,
    shrink as shrink,
    study as study,
)
from .tasks import (
    PromptPairs as PromptPairs,
    PromptReport as PromptReport,
    look_at_prompts as look_at_prompts,
    metrics as metrics,
)

__version__: str
