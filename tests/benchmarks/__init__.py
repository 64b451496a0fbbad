"""What `chathistory` costs, beside the plainest code that does the same and beside other libraries.

    make bench                                          all of it, in an environment of its own
    python -m tests.benchmarks --quick                  within three minutes
    python -m tests.benchmarks compare OLD NEW          what changed between two runs

    __main__    the command
    report      a run as Markdown, `plot` as an SVG, `comparing` two runs
    works       what is measured of a backend: appends, reads, listing, threads, fresh processes, costs
    about       what is measured of a library: its import, and what it makes of Claude's messages
    servers     the real servers, and places to keep conversations there
    subjects    who is measured: a small class for each
    measuring   turn and turn about, medians, ratios
    samples     a turn, and names

Each uses only those below it. `bench_*.py` are scripts that stand for themselves: a run of full size ends with them.
"""
