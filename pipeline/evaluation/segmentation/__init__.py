"""How well probability maps fit masks: rules for pixels, targets and curves, and their published mixtures."""
