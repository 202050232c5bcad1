"""Pictures of results, as matplotlib figures; `save(figure, "heads.png", formats=("png", "svg", "pdf"))` writes one. No pyplot,
no global state."""

from circuits.plots.anomalies import anomalies_figure
from circuits.plots.behaviour import behaviour_figure
from circuits.plots.branches import equivariance_figure, specialisation_figure
from circuits.plots.concepts import concept_figure
from circuits.plots.feature_nodes import attribution_graph_figure, feature_circuit_figure, feature_scores_figure
from circuits.plots.features import dictionary_figure, feature_figure, superposition_figure
from circuits.plots.graphs.circuit import circuit_figure
from circuits.plots.graphs.comparison import comparison_figure
from circuits.plots.graphs.paths import path_figure
from circuits.plots.graphs.recurrence import recurrence_figure
from circuits.plots.head_patterns import head_patterns_figure, head_pruning_figure
from circuits.plots.heads.composition import composition_figure
from circuits.plots.heads.letters import letter_heads_figure
from circuits.plots.heads.patterns import patterns_figure
from circuits.plots.heads.scores import head_scores_figure
from circuits.plots.heads.tables import compression_figure, tables_figure
from circuits.plots.heads.tracing import attention_figure, attention_probe_figure, disagreement_figure, head_labels_figure
from circuits.plots.heads.training import phase_change_figure, training_curves_figure
from circuits.plots.judged import curve_figure, roc_figure, verdict_figure
from circuits.plots.lenses.direct import direct_logits_figure
from circuits.plots.lenses.explaining import explanation_figure, explanations_figure, module_figure
from circuits.plots.lenses.lens import lens_comparison_figure, lens_curves_figure, lens_figure, tuned_lens_figure
from circuits.plots.lenses.memories import (
    agreement_figure,
    clamp_figure,
    neuron_figure,
    sub_updates_figure,
    triggers_figure,
    values_figure,
)
from circuits.plots.neuron_forms import neuron_forms_figure
from circuits.plots.neuron_rankings import neuron_knockout_figure, neuron_rankings_figure
from circuits.plots.patching.effects import effects_figure
from circuits.plots.patching.losses import ablation_figure, knockout_figure, self_repair_figure
from circuits.plots.patching.terms import layer_removal_figure, terms_figure
from circuits.plots.patching.traces import role_curves_figure, trace_figure
from circuits.plots.probed_prompts import prompt_probes_figure
from circuits.plots.probes import coreference_figure, probes_figure, property_use_figure, tree_probes_figure
from circuits.plots.prompts import prompts_figure
from circuits.plots.saving import save
from circuits.plots.span_probes import span_probes_figure
from circuits.plots.study import studied_circuit_figure, study_figure, study_plan_figure
from circuits.plots.tree_arcs import tree_arcs_figure
from circuits.plots.uses.amplified import amplified_figure
from circuits.plots.uses.attributions import word_attributions_figure
from circuits.plots.uses.editing import (
    edit_scores_figure,
    edits_together_figure,
    key_moments_figure,
    weight_edit_figure,
)
from circuits.plots.uses.feedback import feedback_figure
from circuits.plots.uses.inside import inside_change_figure
from circuits.plots.uses.regularising import er_test_figure
from circuits.plots.uses.scores import classifier_scores_figure
from circuits.plots.uses.shortcuts import shortcuts_figure
from circuits.plots.uses.stability import stability_figure

__all__ = [
    "ablation_figure",
    "agreement_figure",
    "amplified_figure",
    "anomalies_figure",
    "attention_figure",
    "attention_probe_figure",
    "attribution_graph_figure",
    "behaviour_figure",
    "circuit_figure",
    "clamp_figure",
    "classifier_scores_figure",
    "comparison_figure",
    "composition_figure",
    "compression_figure",
    "concept_figure",
    "coreference_figure",
    "curve_figure",
    "dictionary_figure",
    "direct_logits_figure",
    "disagreement_figure",
    "edit_scores_figure",
    "edits_together_figure",
    "effects_figure",
    "equivariance_figure",
    "er_test_figure",
    "explanation_figure",
    "explanations_figure",
    "feature_circuit_figure",
    "feature_figure",
    "feature_scores_figure",
    "feedback_figure",
    "head_labels_figure",
    "head_patterns_figure",
    "head_pruning_figure",
    "head_scores_figure",
    "inside_change_figure",
    "key_moments_figure",
    "knockout_figure",
    "layer_removal_figure",
    "lens_comparison_figure",
    "lens_curves_figure",
    "lens_figure",
    "letter_heads_figure",
    "module_figure",
    "neuron_figure",
    "neuron_forms_figure",
    "neuron_knockout_figure",
    "neuron_rankings_figure",
    "path_figure",
    "patterns_figure",
    "phase_change_figure",
    "probes_figure",
    "prompt_probes_figure",
    "prompts_figure",
    "property_use_figure",
    "recurrence_figure",
    "roc_figure",
    "role_curves_figure",
    "save",
    "self_repair_figure",
    "shortcuts_figure",
    "span_probes_figure",
    "specialisation_figure",
    "stability_figure",
    "studied_circuit_figure",
    "study_figure",
    "study_plan_figure",
    "sub_updates_figure",
    "superposition_figure",
    "tables_figure",
    "terms_figure",
    "trace_figure",
    "training_curves_figure",
    "tree_arcs_figure",
    "tree_probes_figure",
    "triggers_figure",
    "tuned_lens_figure",
    "values_figure",
    "verdict_figure",
    "weight_edit_figure",
    "word_attributions_figure",
]
