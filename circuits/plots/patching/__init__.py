"""Pictures of what patches, ablations and traces did."""
