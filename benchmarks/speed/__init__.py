"""Benchmark the speed of each part of the kit against conventional implementations.

``make bench``, or ``python -m benchmarks.speed [PART ...]``; see ``benchmarks/README.md``.
"""
