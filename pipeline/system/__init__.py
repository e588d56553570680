"""pipeline/system."""
