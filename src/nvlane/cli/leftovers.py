"""What is left to undo, in words, for somebody who has just interrupted nvlane."""

from __future__ import annotations

from nvlane.model.errors import NvlaneError


def leftover_words() -> tuple[str, ...]:
    """A line for each run that was cut short, or what kept us from knowing."""
    from nvlane.cli.service.down import leftovers
    from nvlane.cli.service.world import this_world

    try:
        seen = leftovers(this_world())
    except (NvlaneError, OSError) as error:
        return (f"what is left to undo could not be read ({error}); nvlane status shows it",)
    return tuple(
        f"{left.run.name}: {len(left.run.outstanding)} changes are not undone; nvlane restore {left.run.name} does it"
        for left in seen
        if left.run.outstanding
    )
