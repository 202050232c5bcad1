"""What a head does, from its attention pattern and from its weights."""

from circuits.heads.attention.attention_probe import AttentionProbe, probe_attention
from circuits.heads.attention.labels import HeadLabels, label_heads
from circuits.heads.attention.tracing import flow, flow_network, lat, norm_weighted, rollout, trace_attention
from circuits.heads.composition import (
    Composition,
    composition_scores,
    copying_eigenvalue_scores,
    matching_eigenvalue_scores,
)
from circuits.heads.compression import Compression, compress_heads
from circuits.heads.dynamics import Snapshot, TrainingCurves, score_checkpoints, take_snapshot
from circuits.heads.phase_change import PhaseChange, find_phase_change, steepest
from circuits.heads.scores import HeadScores, score_heads
from circuits.heads.weight_tables.all_tables import Tables, measured_scale, tables
from circuits.heads.weight_tables.bugs import SkipTrigramBug, crossed_trigrams, skip_trigram_bugs
from circuits.heads.weight_tables.skip_trigrams import SkipTrigram, skip_trigrams
from circuits.heads.weight_tables.table import WeightTable, bigram_table, ov_table, qk_table
from circuits.heads.weight_tables.virtual import VirtualHead, virtual_heads, virtual_table

__all__ = [
    "AttentionProbe",
    "Composition",
    "Compression",
    "HeadLabels",
    "HeadScores",
    "PhaseChange",
    "SkipTrigram",
    "SkipTrigramBug",
    "Snapshot",
    "Tables",
    "TrainingCurves",
    "VirtualHead",
    "WeightTable",
    "bigram_table",
    "composition_scores",
    "compress_heads",
    "copying_eigenvalue_scores",
    "crossed_trigrams",
    "find_phase_change",
    "flow",
    "flow_network",
    "label_heads",
    "lat",
    "matching_eigenvalue_scores",
    "measured_scale",
    "norm_weighted",
    "ov_table",
    "probe_attention",
    "qk_table",
    "rollout",
    "score_checkpoints",
    "score_heads",
    "skip_trigram_bugs",
    "skip_trigrams",
    "steepest",
    "tables",
    "take_snapshot",
    "trace_attention",
    "virtual_heads",
    "virtual_table",
]
