"""What a change of a domain's XML looks like to a person: the unified diff that `virt-xml --print-diff` shows."""

from __future__ import annotations

import difflib


def unified(before: str, after: str, *, context: int = 3) -> str:
    """The diff, headed 'Original XML' and 'Altered XML' as virt-xml heads it; '' when nothing differs."""
    lines = difflib.unified_diff(
        before.splitlines(), after.splitlines(), "Original XML", "Altered XML", lineterm="", n=context
    )
    return "\n".join(lines)
