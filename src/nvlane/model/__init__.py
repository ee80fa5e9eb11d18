"""Small frozen values that every room shares; nothing here knows a host."""
