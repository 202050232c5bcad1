"""What happens if: interventions, exact. Many patched runs share one base run and ride through the layers together."""

from circuits.patching.causal_tracing import causal_trace, noise_level
from circuits.patching.traces import Trace, Traces

__all__ = ["Trace", "Traces", "causal_trace", "noise_level"]
