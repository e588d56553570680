"""Events: confirmed tracks that fulfil the rules of the configuration, as messages and files."""
