"""Rules over more than one key of the spec: one module a lane, one for the machine, one across lanes."""
