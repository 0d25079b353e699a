"""`ponder`: picks the verb, and turns every error into one clear line and an exit code.

Exit codes: 0 done; 1 it failed while running; 2 misuse (flags, recipe, model or request that cannot be served);
130 interrupted with Ctrl-C. Tracebacks appear only under --debug.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import version
from io import TextIOWrapper
from types import TracebackType
from typing import NoReturn

from ponder.cli import (
    ask,
    bench,
    chat,
    check,
    demo,
    evaluate,
    export,
    generate,
    inspect,
    jobs,
    lint,
    rank,
    score,
    serve,
    steps,
    tasks,
    train,
)
from ponder.types import InvalidRequest, PonderError, RecipeError

VERBS = (
    ask,
    chat,
    inspect,
    lint,
    serve,
    jobs,
    tasks,
    generate,
    train,
    evaluate,
    rank,
    score,
    steps,
    check,
    bench,
    export,
    demo,
)
FAILED, MISUSE, INTERRUPTED = 1, 2, 130


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(MISUSE, f"{self.prog}: {message} (see `{self.prog} --help`)\n")


def build_parser() -> Parser:
    parser = Parser(
        prog="ponder",
        description="Train language models to think before they answer, run them, and serve them.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"ponder {version('ponder')}")
    common = Parser(add_help=False, allow_abbrev=False)
    common.add_argument("--debug", action="store_true", help="show the traceback of an error")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", dest="verb", required=True)
    for module in VERBS:
        verb = verbs.add_parser(
            module.NAME, help=module.HELP, description=module.HELP, parents=[common], allow_abbrev=False
        )
        module.add_arguments(verb)
        verb.set_defaults(run=module.run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return its exit code. A bug of ours propagates, shortened to a line by `one_line_hook`."""
    if argv is None:
        speak_utf8()
    args = build_parser().parse_args(argv)
    if not args.debug:
        sys.excepthook = one_line_hook
    try:
        code: int = args.run(args)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt as interrupt:
        return report(args, ": ".join(["interrupted", *map(str, interrupt.args)]), INTERRUPTED)
    except BrokenPipeError:  # the reader of our output left: nothing to tell it, and nothing to print at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except (InvalidRequest, RecipeError) as error:
        return report(args, str(error), MISUSE)
    except OSError as error:
        return report(args, _said(error), FAILED)
    except (UnicodeEncodeError, UnicodeDecodeError) as error:
        if error.encoding.startswith("utf"):
            raise
        what = f"{error.object!r:.120} cannot be expressed in {error.encoding}, the encoding of this locale"
        return report(args, f"{what}: set PYTHONUTF8=1, or a locale with UTF-8", MISUSE)
    except PonderError as error:
        return report(args, str(error), FAILED)


def _said(error: OSError) -> str:
    """The words for an error of the system. A full disk tells no path where the output or a temporary file met it."""
    from ponder.model.storage import refusal

    text = refusal(error)
    with suppress(OSError):
        sys.stdout.flush()  # else the interpreter tries again as it ends, and complains
    if text is None:
        return str(error)
    return f"{error.filename or 'the output or a temporary file'}: cannot be written, because {text}"


def speak_utf8() -> None:
    """See to it that a locale without UTF-8 ends nothing.

    Under ASCII no file name, question or answer in another script could be read or written: begin again in Python's
    UTF-8 mode, which child processes inherit. Under other encodings, what they cannot express is spelled out.
    """
    if sys.getfilesystemencoding() == "ascii" and os.environ.get("PYTHONUTF8") != "1":
        os.environ["PYTHONUTF8"] = "1"
        os.execv(sys.executable, sys.orig_argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper) and not stream.encoding.lower().startswith("utf"):
            stream.reconfigure(errors="backslashreplace")
    if isinstance(sys.stdin, TextIOWrapper) and sys.stdin.encoding.lower() in ("ascii", "us-ascii", "ansi_x3.4-1968"):
        sys.stdin.reconfigure(encoding="utf-8")


def report(args: argparse.Namespace, message: str, code: int) -> int:
    """Say what went wrong on stderr: one line, or the traceback under --debug."""
    with suppress(OSError):  # the terminal was closed
        if args.debug:
            traceback.print_exc()
        else:
            print(f"ponder {args.verb}: {' '.join(message.split())}", file=sys.stderr)
    return code


def one_line_hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """What the interpreter prints for an unexpected error."""
    text = " ".join(str(error).split())
    print(
        f"ponder: internal error, {kind.__name__}: {text} (run again with --debug for the traceback)", file=sys.stderr
    )
