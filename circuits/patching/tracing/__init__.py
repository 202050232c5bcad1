"""Where a prediction comes from: causal tracing, knockout, attention."""
