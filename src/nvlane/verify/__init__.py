"""Claims to evidence: what the lanes promised, looked up from inside the guest. Never changed, never assumed."""
