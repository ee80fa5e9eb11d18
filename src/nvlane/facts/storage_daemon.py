"""What a qemu-storage-daemon binary can do, in its own words."""

from __future__ import annotations

from typing import Final

from nvlane.facts.qmp_script import Question, Schema, ask, version_text
from nvlane.facts.shape import StorageDaemon
from nvlane.model.errors import HostError, WireError
from nvlane.model.host import HostReader

_ARGUMENTS: Final = ("--chardev", "stdio,id=probe", "--monitor", "chardev=probe")
_QUESTIONS: Final[tuple[Question, ...]] = (("query-version", {}), ("query-qmp-schema", {}))


def read_storage_daemon(host: HostReader, path: str) -> StorageDaemon:
    """Ask the binary at an absolute path. A broken one gives a value with `error`, never an exception."""
    try:
        version, schema = ask(host, (path, *_ARGUMENTS), _QUESTIONS)
        entries = Schema(schema)
        return StorageDaemon(
            path=path,
            version=version_text(version),
            exports=tuple(sorted(entries.tag_values("block-export-add"))),
            block_drivers=tuple(sorted(entries.tag_values("blockdev-add"))),
            aio=tuple(sorted(entries.enum_with("threads", "native"))),
        )
    except (HostError, WireError) as error:
        return StorageDaemon(path=path, version="", error=str(error))
    except (KeyError, TypeError, ValueError, StopIteration) as error:
        words = f"{path} gave an answer that is not QMP as it is documented: {error!r}"
        return StorageDaemon(path=path, version="", error=words)
