"""What a model computes: loading, weights, and the forward pass."""

from circuits.models.answering import shown_prompt
from circuits.models.edits import Edit
from circuits.models.loading.families import Family, register_family
from circuits.models.loading.load import from_bridge, load_model
from circuits.models.loading.sources import bundled_models
from circuits.models.model import Model
from circuits.models.outputs import attention_bias, node_output
from circuits.models.run import Run
from circuits.models.tokens import TokenBatch
from circuits.models.weight_edits import WeightEdit

__all__ = [
    "Edit",
    "Family",
    "Model",
    "Run",
    "TokenBatch",
    "WeightEdit",
    "attention_bias",
    "bundled_models",
    "from_bridge",
    "load_model",
    "node_output",
    "register_family",
    "shown_prompt",
]
