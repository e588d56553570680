"""pipeline/imaging."""
