"""Settings from files, the environment and the caller: which store, which model, and where each value came from.

    opening     the store and the history that settings name
    load        all places together
    settings    what can be set, and the values in force
    layers      which place wins, and what a profile adds
    files       which files are read, and whether they may be
    variables   `${VARIABLE}` in a file

Each uses only those below it. `docs/configuration.md` is this for users. Nothing here is loaded before it is used.
"""
