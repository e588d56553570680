"""pipeline/evaluation/analysis."""
