"""Benchmarks. Importing the package limits the spinning of OpenMP threads, as commands do."""

from pipeline.system.cli import limit_thread_spinning

limit_thread_spinning()
