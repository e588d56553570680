"""pipeline/sinks."""
