"""The import rule, and where effects may be: model <- spec, facts <- plan <- lanes."""

from __future__ import annotations

from source_tree import PACKAGE, calls, imports, package

_ALL = frozenset(path.name for path in PACKAGE.iterdir() if path.is_dir() and not path.name.startswith("_"))
_WITHOUT_CLI = _ALL - {"cli"}
_UP_TO_LANES = frozenset({"model", "spec", "facts", "plan", "lanes"})

#: Room to the rooms that it may import. A room that is not named may import anything but `cli`.
RULE = {
    "model": frozenset({"model"}),
    "spec": frozenset({"model", "spec"}),
    "facts": frozenset({"model", "facts"}),
    "plan": frozenset({"model", "spec", "facts", "plan"}),
    "lanes": _UP_TO_LANES,
    "advise": _UP_TO_LANES | {"advise"},
    "qemu": frozenset({"model", "qemu"}),
    "libvirt": frozenset({"model", "qemu", "libvirt"}),
    "bench": frozenset({"model", "spec", "bench"}),
    "report": frozenset({"model", "bench", "report"}),
    "cli": _ALL,
}
#: Rooms of values: what they compute depends on nothing but their arguments.
PURE = ("model", "spec", "facts", "plan", "lanes", "advise", "qemu", "libvirt", "bench")
EFFECTS = {
    *("asyncio", "ctypes", "fcntl", "io", "mmap", "multiprocessing", "os", "random", "resource", "secrets", "select"),
    *("selectors", "shutil", "signal", "socket", "subprocess", "tempfile", "threading", "time", "urllib"),
}
#: pathlib is pure while it only computes.
PURE_PATHS = frozenset({"pathlib.PurePath", "pathlib.PurePosixPath"})
#: What is excepted: a spec has to come from somewhere, and facts say when they were taken.
EXCEPTED = {("src/nvlane/spec/reader.py", "pathlib.Path"), ("src/nvlane/facts/host.py", "time")}
SPAWNING = (
    "os.fork",
    "os.forkpty",
    "os.posix_spawn",
    "os.posix_spawnp",
    "os.system",
    "os.popen",
    "os.exec",
    "os.spawn",
)
SPAWNER = "src/nvlane/apply/process.py"


def test_import_rule() -> None:
    wrong = [
        f"{source.name}:{line}: {source.room or 'the package'} imports {name}"
        for source in package()
        for line, name in imports(source)
        if name.startswith("nvlane.")
        and (room := name.split(".")[1]) in _ALL
        and room not in RULE.get(source.room, _WITHOUT_CLI if source.room else _ALL)
    ]
    assert not wrong, "\n".join(wrong)


def test_pure_rooms_have_no_effects() -> None:
    wrong = [
        f"{source.name}:{line}: imports {name}"
        for source in package()
        if source.room in PURE
        for line, name in imports(source)
        if (name.split(".")[0] in EFFECTS or (name.split(".")[0] == "pathlib" and name not in PURE_PATHS))
        and (source.name, name) not in EXCEPTED
    ]
    wrong += [
        f"{source.name}:{call.lineno}: calls {name}"
        for source in package()
        if source.room in PURE
        for call, name in calls(source)
        if name in ("open", "print", "input", "exec", "eval")
    ]
    assert not wrong, "\n".join(wrong)


def test_one_module_starts_processes() -> None:
    wrong = [
        f"{source.name}:{line}: imports {name}"
        for source in package()
        if source.name != SPAWNER
        for line, name in imports(source)
        if name.split(".")[0] in ("subprocess", "multiprocessing", "pty")
    ]
    wrong += [
        f"{source.name}:{call.lineno}: calls {name}"
        for source in package()
        if source.name != SPAWNER
        for call, name in calls(source)
        if name.startswith(SPAWNING) or name.endswith(("create_subprocess_exec", "create_subprocess_shell"))
    ]
    assert not wrong, "\n".join(wrong)


def test_exceptions_are_used() -> None:
    """An exception that nobody needs any more is a hole."""
    used = {(source.name, name) for source in package() for _, name in imports(source)}
    assert used >= EXCEPTED
