"""Benchmarks: `chathistory` compared with the plainest code that does the same, and with other libraries.

    make bench                                          everything, in an environment of its own
    python -m tests.benchmarks --quick                  less of each, within three minutes
    python -m tests.benchmarks compare OLD NEW          what changed between two runs

    __main__              the command
    report                a run as Markdown, and the comparison of two runs; `plot` draws an SVG
    workloads             what is measured on a backend: appends, reads, listing, threads, fresh processes, counts
    import_and_fidelity   what is measured of a library: its import, and which messages come back unchanged
    servers               the real servers, and stores on them
    libraries             what is compared: a small class for each library
    timing                calls that alternate, medians, ratios
    samples               a turn, and names

Each module uses only those below it. `bench_*.py` are scripts of their own; a run of full size ends with them.
"""
