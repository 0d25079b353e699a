"""What runs in a child cannot hurt, slow or change the parent, and gives the same result from everywhere."""

import asyncio
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from ponder.sandbox import isolate
from ponder.sandbox.isolate import CallOutcome, CallResult, Variables, run_isolated, submit_isolated


def test_returns_what_the_function_returns():
    assert run_isolated("math:sqrt", 9) == CallResult(CallOutcome.DONE, 3.0)


def test_runs_in_another_process_that_never_imports_torch():
    result = run_isolated("builtins:eval", "[__import__('os').getpid(), 'torch' in __import__('sys').modules]")
    assert result.value[0] != os.getpid()
    assert result.value[1] is False


def test_a_hang_costs_one_timeout():
    began = time.monotonic()
    assert run_isolated("time:sleep", 60, timeout=0.2).outcome is CallOutcome.TIMEOUT
    assert time.monotonic() - began < 5
    assert run_isolated("math:sqrt", 9).value == 3.0


def test_a_hang_inside_c_code_is_ended_too():
    assert run_isolated("builtins:eval", "9**9**9", timeout=0.3).outcome is CallOutcome.TIMEOUT


def test_a_hang_does_not_delay_its_neighbours():
    slow = [submit_isolated("time:sleep", 60, timeout=1.0) for _ in range(2)]
    fast = [submit_isolated("math:sqrt", i * i) for i in range(20)]
    assert [each.result().value for each in fast] == list(range(20))
    assert all(each.result().outcome is CallOutcome.TIMEOUT for each in slow)


def test_memory_is_limited():
    assert run_isolated("builtins:bytearray", 1 << 31, memory=1 << 28).outcome is CallOutcome.MEMORY
    assert run_isolated("builtins:len", "x", memory=1 << 28).value == 1


@pytest.mark.parametrize(
    ("code", "outcome"),
    [
        ("__import__('os').abort()", CallOutcome.DIED),
        ("__import__('os')._exit(3)", CallOutcome.DIED),
        ("__import__('os').close(3)", CallOutcome.RAISED),
        ("__import__('sys').exit(3)", CallOutcome.RAISED),
        ("1/0", CallOutcome.RAISED),
        ("'x' * (1 << 25)", CallOutcome.DIED),
        ("object()", CallOutcome.RAISED),
    ],
)
def test_a_call_that_breaks_says_how_and_the_next_one_works(code, outcome):
    result = run_isolated("builtins:eval", code)
    if "close" in code:  # the child cannot even answer
        outcome = CallOutcome.DIED
    assert result.outcome is outcome
    assert result.why
    assert run_isolated("math:sqrt", 9).value == 3.0


def test_what_an_answer_prints_goes_nowhere(capfd):
    run_isolated("builtins:print", "noise")
    assert capfd.readouterr() == ("", "")


def test_files_cannot_be_written(tmp_path):
    target = tmp_path / "written"
    run_isolated("builtins:eval", f"open({str(target)!r}, 'w').write('x' * 100)")
    assert not target.exists() or target.read_text() == ""


def test_a_child_of_its_own_starts_clean_and_a_shared_one_goes_on():
    mark = "setattr(__import__('math'), 'mark', getattr(__import__('math'), 'mark', 0) + 1) or __import__('math').mark"
    assert [run_isolated("builtins:eval", mark).value for _ in range(3)] == [1, 1, 1]
    assert [run_isolated("builtins:eval", mark, share="test").value for _ in range(3)] == [1, 2, 3]


def test_a_shared_child_that_hangs_is_replaced():
    assert run_isolated("time:sleep", 60, timeout=0.2, share="hang").outcome is CallOutcome.TIMEOUT
    assert run_isolated("math:sqrt", 9, share="hang").value == 3.0


def test_more_kinds_of_shared_children_than_room_still_work():
    for round in range(3):
        for kind in range(12):
            assert run_isolated("math:sqrt", 9, share=f"kind {kind}").value == 3.0, round


def test_same_result_from_threads_and_asyncio():
    with ThreadPoolExecutor(8) as pool:
        threaded = list(pool.map(lambda n: run_isolated("math:sqrt", n * n).value, range(32)))

    async def gathered():
        return [
            each.value
            for each in await asyncio.gather(
                *(asyncio.wrap_future(submit_isolated("math:sqrt", n * n)) for n in range(32))
            )
        ]

    assert threaded == asyncio.run(gathered()) == list(range(32))


def test_a_forked_worker_gets_a_server_of_its_own():
    run_isolated("math:sqrt", 9)
    program = (
        "import os\n"
        "from ponder.sandbox.isolate import run_isolated\n"
        "assert run_isolated('math:sqrt', 9).value == 3.0\n"
        "pid = os.fork()\n"
        "assert run_isolated('math:sqrt', 16).value == 4.0\n"
        "if pid: assert os.waitpid(pid, 0)[1] == 0\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", "-W", "ignore::DeprecationWarning", "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_lost_server_fails_its_calls_and_the_next_call_starts_another():
    pending = submit_isolated("time:sleep", 60, timeout=50)
    server = isolate._server(Variables.INHERITED)
    server._process.kill()
    assert pending.result(timeout=10).outcome is CallOutcome.DIED
    assert run_isolated("math:sqrt", 9).value == 3.0


def test_a_finished_program_leaves_no_process():
    program = (
        "from ponder.sandbox import isolate\n"
        "isolate.submit_isolated('time:sleep', 60, timeout=50)\n"
        "print(isolate.run_isolated('os:getppid', None).why or isolate._server(Variables.INHERITED)._process.pid)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_thousands_of_small_calls_are_quick():
    run_isolated("math:sqrt", 0, share="quick")
    began = time.monotonic()
    results = [submit_isolated("math:sqrt", n, share="quick") for n in range(3000)]
    assert all(each.result().outcome is CallOutcome.DONE for each in results)
    assert time.monotonic() - began < 10


def test_a_fork_servers_reader_is_one_thread_whatever_the_number_of_calls():
    def readers() -> int:
        return sum(thread.name == "ponder-sandbox" and thread.is_alive() for thread in threading.enumerate())

    for variables in Variables:
        run_isolated("math:sqrt", 1, variables=variables)
    before = readers()
    assert before >= len(Variables), "one for each fork server"
    for variables in Variables:
        for _ in range(5):
            run_isolated("math:sqrt", 1, variables=variables)
    assert readers() == before
