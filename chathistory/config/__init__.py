"""Settings from files, the environment and the caller: which store, which model, and where each value came from.

    open        the store and the history that settings name
    load        all sources together, and which of them counts
    files       which files are read, and whether they may be
    settings    what can be set, and the values in force
    source      where a value came from, and `${VARIABLE}` in a file

Each uses only those below it. `docs/configuration.md` is this for users. Nothing here is loaded before it is used.
"""
