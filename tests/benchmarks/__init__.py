"""Benchmarks; importing one of them limits the spinning of OpenMP threads, as a command does."""

from pipeline.system.cli import limit_thread_spinning

limit_thread_spinning()
