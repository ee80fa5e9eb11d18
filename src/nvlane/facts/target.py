"""What nvlane's own vhost-user target, the program `nvlane-target`, says of itself."""

from __future__ import annotations

import re

from nvlane.facts.shape import Target
from nvlane.model.errors import HostError
from nvlane.model.host import HostReader


def read_target(host: HostReader, path: str) -> Target:
    """Ask the program at an absolute path. A broken one gives a value with `error`, never an exception."""
    try:
        said = host.query((path, "--version"))
    except HostError as error:
        return Target(path=path, version="", error=str(error))
    found = re.fullmatch(r"nvlane-target (\S+)", said.stdout.strip())
    if said.status != 0 or found is None:
        words = (said.stderr or said.stdout).strip().splitlines()[-1:] or [f"exit status {said.status}"]
        return Target(path=path, version="", error=f"{path} does not run here: {words[0]}")
    return Target(path=path, version=found[1])
