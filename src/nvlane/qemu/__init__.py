"""Typed devices to QEMU: arguments, hot-plug commands, and what a running machine says of itself. Pure."""
