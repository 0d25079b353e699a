"""Python objects by name: "module:qualname" or "path/to/file.py:qualname"."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from hashlib import sha256
from pathlib import Path
from types import ModuleType

from ponder.types import InvalidRequest


def load_object(spec: str) -> object:
    """The object that `spec` names. Raises InvalidRequest when the module, the file or the attribute does not exist."""
    where, colon, qualname = spec.rpartition(":")
    if not colon or not where or not qualname:
        raise InvalidRequest(f"{spec!r} names no object: write 'module:name' or 'path/to/file.py:name'")
    found: object = _from_file(Path(where), spec) if where.endswith(".py") else _from_module(where, spec)
    for attribute in qualname.split("."):
        if not hasattr(found, attribute):
            raise InvalidRequest(f"{spec!r}: {where} has no {qualname!r}")
        found = getattr(found, attribute)
    return found


def _from_module(name: str, spec: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(error.name + ".")):
            raise InvalidRequest(f"{spec!r}: there is no module {name!r}") from error
        raise


def _from_file(path: Path, spec: str) -> ModuleType:
    """Import a file once: a second call gives the same module, so its classes stay the same classes."""
    if not path.is_file():
        raise InvalidRequest(f"{spec!r}: there is no file {str(path)!r}")
    path = path.resolve()
    name = f"ponder_user_{path.stem}_{sha256(str(path).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    description = importlib.util.spec_from_file_location(name, path)
    assert description is not None
    assert description.loader is not None
    module = importlib.util.module_from_spec(description)
    sys.modules[name] = module
    try:
        description.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
