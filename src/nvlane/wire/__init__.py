"""Protocols, no policy."""
