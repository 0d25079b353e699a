"""Python objects by name, "module:qualname" or "path/to/file.py:qualname", and where in them something went wrong."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from types import ModuleType

from ponder.types import InvalidRequest, PonderError

# Ponder, the standard library and installed packages: not where a mistake of the user's is.
_INSTALLED = [sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")]
_OTHERS = (str(Path(__file__).parents[1]), *_INSTALLED, "<frozen")
_beside: dict[str, Path] = {}  # modules that lie beside a file that was imported, and their folder


def load_object(spec: str) -> object:
    """The object that `spec` names.

    Raises InvalidRequest when the module, the file or the attribute does not exist, and for what goes wrong while it is
    imported, with file and line.
    """
    where, colon, qualname = spec.rpartition(":")
    if not colon or not where or not qualname:
        raise InvalidRequest(f"{spec!r} does not name an object: write 'module:name' or 'path/to/file.py:name'")
    found: object = _from_file(Path(where), spec) if where.endswith(".py") else _from_module(where, spec)
    for attribute in qualname.split("."):
        if not hasattr(found, attribute):
            raise InvalidRequest(f"{spec!r}: {where} has no {qualname!r}")
        found = getattr(found, attribute)
    return found


def files_of_object(spec: str) -> list[Path]:
    """The file that `spec` was loaded from, and the modules that lie beside it and are imported."""
    where, _, _ = spec.rpartition(":")
    if not where.endswith(".py"):
        file = getattr(sys.modules[where], "__file__", None)
        return [Path(file)] if file else []
    path = Path(where).resolve()
    beside = (getattr(sys.modules[name], "__file__", None) for name, home in _beside.items() if home == path.parent)
    return sorted({path, *map(Path, filter(None, beside))})


def described(error: BaseException) -> str:
    """An exception of foreign code in one line: its type, its text, and the line of that code that it comes from."""
    try:
        text = str(error)
    except Exception:  # foreign code may raise anything, here too
        text = "without a text"
    if isinstance(error, SyntaxError):
        return f"{type(error).__name__}: {error.msg} ({error.filename}, line {error.lineno})"
    place, trace = "", error.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if not file.startswith(_OTHERS):
            place = f" ({file}, line {trace.tb_lineno})"
        trace = trace.tb_next
    return f"{type(error).__name__}: {text}{place}"


def _from_module(name: str, spec: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(error.name + ".")):
            raise InvalidRequest(f"{spec!r}: there is no module {name!r}") from error
        raise _cannot_be_imported(spec, error) from error
    except PonderError:
        raise
    except (Exception, SystemExit) as error:  # foreign code may raise anything
        raise _cannot_be_imported(spec, error) from error


def _cannot_be_imported(spec: str, error: BaseException) -> InvalidRequest:
    return InvalidRequest(f"{spec!r} cannot be imported ({described(error)}): mend it there")


def _from_file(path: Path, spec: str) -> ModuleType:
    """Import a file once: a second call gives the same module, so its classes stay the same classes."""
    if not path.is_file():
        raise InvalidRequest(f"{spec!r}: there is no file {str(path)!r}")
    path = path.resolve()
    name = f"ponder_user_{path.stem}_{sha256(str(path).encode(errors='surrogateescape')).hexdigest()[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    description = importlib.util.spec_from_file_location(name, path)
    assert description is not None
    assert description.loader is not None
    module = importlib.util.module_from_spec(description)
    sys.modules[name] = module
    try:
        with _finding_what_lies_in(path.parent):
            description.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, PonderError) or not isinstance(error, Exception | SystemExit):
            raise
        raise _cannot_be_imported(spec, error) from error
    return module


@contextmanager
def _finding_what_lies_in(folder: Path) -> Iterator[None]:
    """As in a script, `import helper` finds what lies beside the file, and not a module of that name beside another."""
    for name, home in list(_beside.items()):
        if home != folder and ((folder / f"{name}.py").exists() or (folder / name).is_dir()):
            del _beside[name]
            for known in [known for known in sys.modules if known == name or known.startswith(f"{name}.")]:
                del sys.modules[known]
    before = set(sys.modules)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        if str(folder) not in sys.path:
            sys.path.append(str(folder))  # for what its functions import when they run
        for name in sys.modules.keys() - before:
            file = getattr(sys.modules[name], "__file__", None)
            if file and "." not in name and Path(file).is_relative_to(folder):
                _beside[name] = folder
