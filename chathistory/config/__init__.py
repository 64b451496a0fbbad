"""Settings from files, the environment and the caller: which store, which model, and where each value came from.

    open        open the store and the history that the settings name
    load        merge all sources by their precedence
    files       find and read configuration files, and check who owns them
    settings    the settings that exist, and the values in force
    source      where a value came from, and `${VARIABLE}` in a file

Each module uses only those below it. `docs/configuration.md` is for users. Nothing here is imported before it is used.
"""
