"""Errors, commands, files, signals and threads; nothing in here knows frames or networks."""
