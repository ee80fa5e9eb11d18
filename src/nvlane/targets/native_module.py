"""The one file that knows `nvlane._native`, the Python module of crates/py: what the target's own code says of itself.

It may be missing, in a checkout in which nothing was built: everything but completion and checks works without it.
"""

from __future__ import annotations

from nvlane.model.errors import SpecError


def method_names() -> tuple[str, ...]:
    """The names of all JSON-RPC methods, the old ones too; () when the module is missing."""
    try:
        from nvlane import _native
    except ImportError:
        return ()  # completion has nothing to offer, and no error is called for
    return tuple(sorted({*_native.methods(), *_native.aliases()}))


def check_config(path: str, text: str) -> None:
    """Check a file of JSON-RPC calls (SPDK's save_config) without starting one. Raises SpecError with the place."""
    try:
        from nvlane import _native
    except ImportError:
        return  # the target checks it once more when it starts
    try:
        _native.check_config(text)
    except ValueError as error:
        raise SpecError(str(error), source=path) from error
