"""One use case a module: what the verbs do, apart from how they are called and what they print."""
