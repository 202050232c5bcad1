"""Edge probes: what is read off pairs of spans, layer by layer and off a mix of layers."""
