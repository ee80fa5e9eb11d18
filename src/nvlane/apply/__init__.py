"""The only room with effects on a host: executor, journal, Linux host, in-memory host."""
