"""The command line: one small file a verb. Everything may be used here, and nothing imports this room."""
