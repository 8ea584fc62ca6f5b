"""Speed: what each part of the kit costs, beside the usual way of doing it.

``make bench``, or ``python -m benchmarks.speed [PART ...]``; see ``benchmarks/README.md``.
"""
