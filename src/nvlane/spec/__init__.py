"""What the user wants, parsed once into frozen values. The spec says what, never how."""
