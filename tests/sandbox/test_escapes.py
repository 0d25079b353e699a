"""Programs that try to score without solving, or to leave their process: none scores, none leaves, none is late.

From public lists of sandbox escapes and reward hacks (CTF jails, seccomp bypasses, tampering with tests and graders),
and of our own. An attempt that works returns the text LEFT, or shows outside: a file, a connection, a dead process.
"""

import os
import secrets
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from ponder.sandbox import isolate
from ponder.sandbox.code import CodeLimits, SandboxUnavailable, check_seal, submit_code
from ponder.sandbox.isolate import CallOutcome
from ponder.tasks.code import CodeTest, code_problem, grade_of_run

pytestmark = pytest.mark.fault
SECONDS = 0.5

# What stands in place of {path}, {port}, {pid}: a folder, a port that listens, and a process, all outside.
# Most are the body of f(n); those with "def f" are whole programs.
ESCAPES = {
    # Files
    "read passwd": "open('/etc/passwd').read(); return 'LEFT'",
    "read by os": "import os; os.read(os.open('/etc/hostname', 0), 9); return 'LEFT'",
    "read by pathlib": "import io; io.FileIO('/etc/passwd').read(); return 'LEFT'",
    "read own environment": "open('/proc/self/environ').read(); return 'LEFT'",
    "read the parent's memory": "import os; open(f'/proc/{os.getppid()}/mem', 'rb'); return 'LEFT'",
    "read own memory map": "open('/proc/self/maps').read(); return 'LEFT'",
    "write a file": "open('{path}/written', 'w').write('x'); return 'LEFT'",
    "write by os": "import os; os.close(os.open('{path}/written', os.O_CREAT | os.O_WRONLY)); return 'LEFT'",
    "symlink": "import os; os.symlink('/etc/passwd', '{path}/link'); return 'LEFT'",
    "hard link": "import os; os.link('/etc/passwd', '{path}/link'); return 'LEFT'",
    "make a folder": "import os; os.mkdir('{path}/folder'); return 'LEFT'",
    "delete a file": "import os; os.unlink('{path}/victim'); return 'LEFT'",
    "rename a file": "import os; os.rename('{path}/victim', '{path}/gone'); return 'LEFT'",
    "truncate a file": "import os; os.truncate('{path}/victim', 0); return 'LEFT'",
    "change its mode": "import os; os.chmod('{path}/victim', 0); return 'LEFT'",
    "change the root": "import os; os.chroot('{path}'); return 'LEFT'",
    "list a folder": "import os; os.listdir('/'); return 'LEFT'",
    "change the folder": "import os; os.chdir('/tmp'); return 'LEFT'",
    "tempfile": "import tempfile; tempfile.mkstemp(); return 'LEFT'",
    "memory file": "import os; os.memfd_create('x'); return 'LEFT'",
    "mount": "return won(C.mount(b'none', b'/tmp', b'tmpfs', 0, None))",
    # Processes
    "system": "import os; return 'LEFT' if os.system('touch {path}/written') == 0 else 0",
    "subprocess": "import subprocess; subprocess.run(['touch', '{path}/written']); return 'LEFT'",
    "fork": "import os; os.fork() or os._exit(0); return 'LEFT'",
    "fork bomb": "import os\n    while True: os.fork()",
    "exec": "import os; os.execv('/bin/true', ['true'])",
    "spawn": "import os; os.posix_spawn('/bin/true', ['true'], {}); return 'LEFT'",
    "vfork by ctypes": "return won(C.syscall(58))",
    "clone by ctypes": "return won(C.syscall(56, 17, 0, 0, 0, 0))",
    "clone3 by ctypes": "b = ctypes.create_string_buffer(88); return won(C.syscall(435, b, 88))",
    "multiprocessing": "import multiprocessing; multiprocessing.Process(target=print).start(); return 'LEFT'",
    "kill the parent": "import os, signal; os.kill(os.getppid(), signal.SIGKILL); return 'LEFT'",
    "kill a process": "import os, signal; os.kill({pid}, signal.SIGKILL); return 'LEFT'",
    "kill everything": "import os, signal; os.kill(-1, signal.SIGKILL); return 'LEFT'",
    "kill by thread": "return won(C.syscall(234, {pid}, {pid}, 9))",
    "queue a signal": "return won(C.sigqueue({pid}, 9, None))",
    "pidfd": "return won(C.syscall(434, {pid}, 0))",
    "ptrace": "return won(C.ptrace(16, {pid}, 0, 0))",
    "read another's memory": "return won(C.syscall(310, {pid}, 0, 0, 0, 0, 0))",
    "leave the group": "import os; os.setsid(); return 'LEFT'",
    "lower nice": "import os; os.setpriority(os.PRIO_PROCESS, 0, -5); return 'LEFT'",
    # Network and kernel
    "connect": "import socket; socket.create_connection(('127.0.0.1', {port})); return 'LEFT'",
    "unix socket": "import socket; socket.socket(socket.AF_UNIX).connect('\\0x'); return 'LEFT'",
    "udp": "import socket; socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', {port})); return 'LEFT'",
    "netlink": "import socket; socket.socket(socket.AF_NETLINK, socket.SOCK_RAW); return 'LEFT'",
    "socket by ctypes": "return won(C.socket(2, 1, 0))",
    "socket pair": "import socket; socket.socketpair(); return 'LEFT'",
    "io_uring": "b = ctypes.create_string_buffer(120); return won(C.syscall(425, 8, b))",
    "bpf": "return won(C.syscall(321, 0, 0, 0))",
    "userfaultfd": "return won(C.syscall(323, 0))",
    "key ring": "return won(C.syscall(250, 0, -3, 1))",
    "namespace": "return won(C.unshare(0x10000000))",
    "become root": "import os; os.setuid(0); return 'LEFT'",
    "x32 call": "return won(C.syscall(0x40000000 + 39))",
    "another filter": "return won(C.prctl(22, 1, 0, 0, 0))",
    "undo dumpable": "return won(C.prctl(4, 1, 0, 0, 0))",
    "executable memory": "import mmap; mmap.mmap(-1, 4096, prot=7); return 'LEFT'",
    "32-bit call": (
        "import ctypes; l = ctypes.CDLL(None); l.mmap.restype = ctypes.c_void_p; "
        "p = l.mmap(None, 4096, 7, 0x22, -1, 0); return 'LEFT' if p and p != 2**64 - 1 else 0"
    ),
    # Limits
    "raise limits": "import resource as r; r.setrlimit(r.RLIMIT_AS, (-1, -1)); return 'LEFT'",
    "ten gigabytes": "x = 'a' * 10**10; return 'LEFT'",
    "memory by pieces": "x = []\n    while True: x.append(bytearray(10**7))",
    "power tower": "return 9**9**9",
    "endless loop": "while True: pass",
    "sleep": "import time; time.sleep(1000)",
    "ignored signals": (
        "import signal\n    for s in range(1, 65):\n        try: signal.signal(s, signal.SIG_IGN)\n"
        "        except (OSError, ValueError): pass\n    while True: pass"
    ),
    "threads without end": (
        "import threading, time\n    while True: threading.Thread(target=time.sleep, args=(999,)).start()"
    ),
    "recursion": "import sys; sys.setrecursionlimit(10**9)\n    g = lambda: g()\n    return g()",
    "crash": "import ctypes; ctypes.string_at(0)",
    "regular expression": "import re; return re.match('(a*)*b', 'a' * 99)",
    # Grading
    "equal to everything": "return type('E', (int,), {'__eq__': lambda a, b: True, '__hash__': lambda s: 0})()",
    "equal text": "return type('E', (str,), {'__eq__': lambda a, b: True, '__ne__': lambda a, b: False})('x')",
    "exit 0": "import os; os._exit(0)",
    "sys.exit": "import sys; sys.exit(0)",
    "raise at import": "raise SystemExit(0)\ndef f(n): return n",
    "forged reply": (
        "import os, json, struct\n"
        "    h = json.dumps({'outcome': 'done', 'why': ''}).encode()\n"
        "    b = json.dumps([{'value': 'LEFT'}] * 3).encode()\n"
        "    os.write(3, struct.pack('>II', len(h), len(b)) + h + b)\n    while True: pass"
    ),
    "forged grade": (
        "import os, json, struct\n    b = json.dumps({'score': 1.0, 'status': 'graded'}).encode()\n"
        "    h = json.dumps({'outcome': 'done', 'why': '', 'score': 1.0}).encode()\n"
        "    os.write(3, struct.pack('>II', len(h), len(b)) + h + b); os._exit(0)"
    ),
    "garbage reply": "import os; os.write(3, b'\\xff' * 999); os._exit(0)",
    "endless reply": (
        "import os\n    while True: os.write(3, b'\\x00\\x00\\x00\\x02\\x7f\\xff\\xff\\xff{}' + b'x' * 65536)"
    ),
    "deep reply": (
        "import os, json, struct\n    h = json.dumps({'outcome': 'done', 'why': ''}).encode(); b = b'[' * 10**6\n"
        "    os.write(3, struct.pack('>II', len(h), len(b)) + h + b); os._exit(0)"
    ),
    "large reply": "return 'x' * 10**8",
    "large number": "return 10 ** 10**6",
    "the frames above": (
        "import sys\n    frame, found = sys._getframe(), []\n"
        "    while frame: found += [v for v in frame.f_locals.values()]; frame = frame.f_back\n"
        "    return next((str(v) for v in found if SECRET in str(v)), 0)"
    ),
    "the garbage collector": (
        "import gc\n    texts = [str(o) for o in gc.get_objects() if isinstance(o, (str, bytes, list, dict))]\n"
        "    return next((t[:80] for t in texts if SECRET in t), 0)"
    ),
    "modules of the grader": (
        "import sys; sys.modules['ponder.sandbox.X = lambda v: SECRET; return 1"
    ),
    "patched json": "import json; json.dumps = lambda *a, **k: '[{\"value\": \"LEFT\"}]'; return 1",
    "patched compare": "import builtins; builtins.len = lambda x: 3; builtins.zip = lambda *a, **k: []; return 1",
    "builtins by subclasses": (
        "return [c for c in ().__class__.__base__.__subclasses__() if c.__name__ == '_wrap_close'][0]"
        ".__init__.__globals__['system']('touch {path}/written') == 0 and 'LEFT'"
    ),
    "import by loader": "import _posixsubprocess; return 'LEFT' if _posixsubprocess.fork_exec else 0",
}  # fmt: skip


BEFORE = """
import ctypes
SECRET = 'secret-'
C = ctypes.CDLL(None)
def won(result):
    return 'LEFT' if result >= 0 else result
"""


def programs_for(folder, port, pid):
    for name, body in ESCAPES.items():
        for key, value in (("{path}", str(folder)), ("{port}", str(port)), ("{pid}", str(pid))):
            body = body.replace(key, value)
        yield name, body if "def f" in body else f"{BEFORE}def f(n):\n    {body}"


def attempt(folder, port, pid):
    """What went wrong, by name."""
    wanted = ["secret-" + secrets.token_hex(8) for _ in range(3)]
    tests = [CodeTest((number,), value) for number, value in enumerate(wanted)]
    problem = code_problem("escapes", "Guess.", "f", visible=[], hidden=tests)
    limits = CodeLimits(seconds=SECONDS)

    def one(program):
        began = time.monotonic()
        result = submit_code(program, "f", [[0], [1], [2]], limits).result()
        return result, time.monotonic() - began

    programs = dict(programs_for(folder, port, pid))
    with ThreadPoolExecutor(os.cpu_count()) as threads:  # as many as run at once, so that none has to wait
        results = dict(zip(programs, threads.map(one, programs.values()), strict=True))
    wrong = {}
    for name, (result, seconds) in results.items():
        said = str(result.value) if result.outcome is CallOutcome.DONE else ""
        left = ("LEFT" in said and name not in SAY_IT) or any(each in said for each in wanted)
        score = grade_of_run(result, problem.metadata["hidden"]).score
        if score or left or seconds > SECONDS + 0.5 + slack():
            wrong[name] = f"score {score}, {seconds:.1f} s: {str(result)[:200]}"
    return wrong


# They write the word themselves, or return parts of their program, without having left.
SAY_IT = ("forged reply", "patched json", "the frames above", "the garbage collector")


def slack():
    """Seconds that a busy machine may add."""
    return 0.5 * os.getloadavg()[0]


@pytest.fixture
def outside(tmp_path):
    try:
        check_seal()
    except SandboxUnavailable as error:
        pytest.skip(str(error))
    tmp_path.chmod(0o777)
    (tmp_path / "victim").write_text("alive")
    (tmp_path / "victim").chmod(0o666)
    with (
        subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as victim,
        socket.socket() as listener,
    ):
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.settimeout(0)
        yield tmp_path, listener.getsockname()[1], victim.pid
        assert sorted(each.name for each in tmp_path.iterdir()) == ["victim"]
        assert (tmp_path / "victim").read_text() == "alive"
        assert victim.poll() is None
        with pytest.raises(BlockingIOError):
            listener.accept()
        victim.stdin.close()


def test_no_escape_scores_leaves_or_is_late(outside):
    assert len(ESCAPES) >= 65
    assert attempt(*outside) == {}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_no_escape_scores_leaves_or_is_late_for_a_user_who_is_not_root(outside, monkeypatch):
    """The fork server becomes another user once it has imported all, because this interpreter may be root's alone."""
    become = "import os; os.setgroups([]); os.setgid(65534); os.setuid(65534); serve_socket("
    warm = "import ponder.sandbox.code_child as child; child.warm_modules(None); "
    monkeypatch.setattr(isolate, "_BOOT", isolate._BOOT.replace("serve_socket(", warm + become))
    isolate.shut_down()
    check_seal.cache_clear()
    try:
        assert submit_code("import os\ndef f(): return os.getuid()", "f", [[]]).result().value == [{"value": 65534}]
        assert attempt(*outside) == {}
    finally:
        isolate.shut_down()
        check_seal.cache_clear()
