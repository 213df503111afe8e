"""The programs that are measured: each carries or answers packets, in a process of its own.

Where a C program does the same (``benchmarks/c``), its contract is theirs: network namespaces as
arguments, a TUN device ``bench0`` in each, ``ready`` on standard output, the end at SIGTERM.
"""
