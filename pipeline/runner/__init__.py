"""Runs: the stages from source to sinks put together, and what a run says about itself."""
