"""Spec files as arguments of verbs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from nvlane.cli.service.up import SpecFile
from nvlane.model.errors import SpecError
from nvlane.spec.reader import read_text
from nvlane.spec.validate import check_together


def read_file(path: str) -> SpecFile:
    """A spec file, or stdin for '-'. Raises SpecError."""
    if path == "-":
        return SpecFile(path="stdin", directory=str(Path.cwd()), text=sys.stdin.read())
    return SpecFile(path=path, directory=str(Path(path).absolute().parent), text=read_text(path))


def read_files(paths: Sequence[str]) -> tuple[SpecFile, ...]:
    """Several spec files, checked each and against one another. Raises SpecError."""
    files = tuple(read_file(path) for path in paths)
    specs = [file.spec() for file in files]
    for index, problem in check_together(specs):
        raise SpecError(problem.message, place=problem.place, source=files[index].path, remedy=problem.remedy)
    return files
