"""`ponder jobs`: hand work over to a server, list it, watch it, look at one job, cancel, export."""

from __future__ import annotations

import argparse
import json
import os
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Generator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from ponder.cli.options import natural
from ponder.cli.terminal import HARMLESS
from ponder.types import InvalidRequest, PonderError

NAME = "jobs"
HELP = "hand many questions to a server at once; list, watch, show, cancel and export them"
AT_ONCE = 1000  # jobs in one request
LINES_SHOWN = 60  # characters of a question and of an answer
SECONDS = 60.0
FINAL = ("completed", "incomplete", "failed", "cancelled")


class ServerRefused(PonderError):
    """The server does not answer, or refuses."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--url", default="http://127.0.0.1:8000", metavar="URL", help="of the server (default: %(default)s)"
    )
    verbs = parser.add_subparsers(title="actions", metavar="ACTION", dest="action", required=True)

    add = verbs.add_parser(
        "add", help="hand over a file: a question on each line, or JSON lines with the fields of jobs"
    )
    add.add_argument("file", metavar="FILE", help="- is the standard input")
    add.add_argument("--model", metavar="M", help="that answers (default: the server's first)")
    add.add_argument("--effort", metavar="E", help="how long to think")
    add.add_argument("--strategy", metavar="S", help="such as 'consensus(samples=8)'")
    add.add_argument("--budget", type=natural, metavar="N", help="tokens of each job, all samples together")
    add.add_argument("--label", action="append", metavar="L", help="may be given several times")
    add.add_argument("--batch", metavar="NAME", help="a name for what is handed over together")
    add.add_argument("--never-ask", action="store_true", help="the jobs wait for no person")
    add.add_argument("--watch", action="store_true", help="watch them until all have ended")

    for name, what in (("list", "list jobs, the newest first"), ("export", "write jobs to the standard output")):
        verb = verbs.add_parser(name, help=what)
        verb.add_argument("--state", action="append", metavar="S", help="may be given several times")
        verb.add_argument("--batch", metavar="NAME")
        verb.add_argument("--search", metavar="TEXT", help="in questions and answers")
        if name == "list":
            verb.add_argument("-n", type=natural, default=50, metavar="N", help="at most (default: 50)")
        else:
            verb.add_argument("--format", choices=("jsonl", "csv"), default="jsonl")
    watch = verbs.add_parser("watch", help="print every change until all jobs have ended")
    watch.add_argument("--batch", metavar="NAME")
    show = verbs.add_parser("show", help="one job whole")
    show.add_argument("id", metavar="ID")
    show.add_argument("--reasoning", action="store_true", help="with what was thought")
    cancel = verbs.add_parser("cancel", help="end jobs")
    cancel.add_argument("ids", metavar="ID", nargs="*")
    cancel.add_argument("--batch", metavar="NAME", help="all of a batch that have not ended")


def run(args: argparse.Namespace) -> int:
    server = JobsClient(args.url, os.environ.get("PONDER_API_KEY", ""))
    actions = {"add": add_jobs, "list": print_jobs, "watch": watch_jobs, "show": show_job, "cancel": end_jobs}
    return {**actions, "export": print_export}[args.action](server, args)


def add_jobs(server: JobsClient, args: argparse.Namespace) -> int:
    jobs = read_jobs(args.file)
    model = args.model or server.get("/v1/models")["data"][0]["id"]
    said = {
        "model": model,
        "effort": args.effort,
        "strategy": args.strategy,
        "budget": args.budget,
        "labels": args.label,
    }
    defaults = {name: value for name, value in said.items() if value is not None}
    if args.never_ask:
        defaults["needs"] = []
    after = server.get("/v1/jobs/counts")["last_event"]
    ids: set[str] = set()
    for start in range(0, len(jobs), AT_ONCE):
        some = jobs[start : start + AT_ONCE]
        made = server.post("/v1/jobs", {"defaults": defaults, "jobs": some, "batch": args.batch})
        ids |= {job["id"] for job in made["data"]}
        for job in made["data"] if not args.watch else ():
            print(job["id"])
    return follow(server, after, lambda job: job["id"] in ids, len(ids)) if args.watch else 0


def read_jobs(file: str) -> list[dict[str, Any]]:
    """A job for each line that is not empty. Raises InvalidRequest naming the line that is not one."""
    text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if not lines:
        raise InvalidRequest(f"{file} holds no line: write a question on each")
    if not file.endswith((".jsonl", ".ndjson")):
        return [{"input": line} for _, line in lines]
    jobs = []
    for number, line in lines:
        try:
            job = json.loads(line)
        except ValueError as error:
            raise InvalidRequest(f"{file}, line {number}: is not JSON ({error})") from None
        if not isinstance(job, dict) or "input" not in job:
            raise InvalidRequest(f"{file}, line {number}: must be an object with 'input'")
        jobs.append(job)
    return jobs


def print_jobs(server: JobsClient, args: argparse.Namespace) -> int:
    left, after = args.n, None
    while left > 0:
        query = {**_filters(args), "limit": min(left, 200), "after": after}
        page = server.get("/v1/jobs", query)
        for job in page["data"]:
            print(job_line(job))
        left, after = left - len(page["data"]), page["next"]
        if after is None:
            break
    return 0


def watch_jobs(server: JobsClient, args: argparse.Namespace) -> int:
    counts = server.get("/v1/jobs/counts", {"batch": args.batch})
    live = sum(number for state, number in counts["states"].items() if state not in FINAL)
    if not live:
        print("no job is queued or runs")
        return 0
    return follow(server, counts["last_event"], lambda job: args.batch in (None, job["batch"]), live)


def follow(server: JobsClient, after: int, wanted: Any, live: int) -> int:
    """Print the changes of jobs until `live` of them have ended. Returns 1 where one has failed."""
    ended: dict[str, str] = {}
    with closing(server.events(after)) as events:
        for name, data in events:
            if name == "reset":
                raise ServerRefused("the server cannot resume its stream of changes: run `ponder jobs watch` again")
            if name != "job" or not wanted(data):
                continue
            print(job_line(data), flush=True)
            if data["state"] in FINAL:
                ended[data["id"]] = data["state"]
            if len(ended) >= live:
                break
    return 1 if "failed" in ended.values() else 0


def show_job(server: JobsClient, args: argparse.Namespace) -> int:
    include = {"include": "reasoning.content"} if args.reasoning else {}
    job = server.get(f"/v1/jobs/{urllib.parse.quote(args.id, safe='')}", include)
    print(job_line(job))
    for item in job["output"] if args.reasoning else ():
        for part in item.get("content", ()) if item["type"] == "reasoning" else ():
            print(part["text"].translate(HARMLESS))
    if job["answer"] is not None:
        print(job["answer"].translate(HARMLESS))
    if job["need"]:
        need = job["need"]
        print(f"waits for you ({need['reason']}): {need['text']}".translate(HARMLESS))
    if job["error"]:
        print(f"{job['error']['code']}: {job['error']['message']}".translate(HARMLESS))
    for line in job["bill"]:
        spent = f"{line['input_tokens']} in, {line['output_tokens']} out ({line['reasoning_tokens']} reasoning)"
        print(f"{line['strategy']} {line['role']} {line['model']}: {spent}".translate(HARMLESS))
    return 0


def end_jobs(server: JobsClient, args: argparse.Namespace) -> int:
    if bool(args.ids) == (args.batch is not None):
        raise InvalidRequest("cancel needs either ids or --batch NAME")
    if args.ids:
        body: dict[str, Any] = {"ids": args.ids, "expected_count": len(set(args.ids))}
    else:
        wanted = {"batch": args.batch, "state": ["queued", "in_progress", "needs_input"]}
        count = server.get("/v1/jobs/counts", wanted)["total"]
        body = {"filter": wanted, "expected_count": count}
    done = server.post("/v1/jobs/actions", {"action": "cancel", **body})
    for each in done["failed"]:
        print(f"{each['id']}: {each['message']}".translate(HARMLESS), file=sys.stderr)
    print(f"{done['changed']} cancelled")
    return 1 if done["failed"] else 0


def print_export(server: JobsClient, args: argparse.Namespace) -> int:
    with closing(server.open("GET", "/v1/jobs/export", {**_filters(args), "format": args.format})) as answer:
        for line in answer:
            sys.stdout.write(line.decode())
    return 0


def _filters(args: argparse.Namespace) -> dict[str, Any]:
    return {"state": args.state, "batch": args.batch, "q": args.search}


def job_line(job: Mapping[str, Any]) -> str:
    """A job on one line: its id, state, question, and answer or error. What a model wrote cannot steer the terminal."""
    said = job["answer"] if job["answer"] is not None else (job["error"] or {}).get("message", "")
    texts = [" ".join(text.split())[:LINES_SHOWN] for text in (job["title"], said)]
    return f"{job['id']}  {job['state']:<11}  {texts[0]}{'  ->  ' if texts[1] else ''}{texts[1]}".translate(HARMLESS)


class JobsClient:
    """Asks a server.

    key: "" sends none.
    """

    def __init__(self, url: str, key: str) -> None:
        if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
            raise InvalidRequest(f"--url must be an address such as http://127.0.0.1:8000 (got {url})")
        self._url = url.rstrip("/").removesuffix("/v1")
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}

    def get(self, path: str, query: Mapping[str, Any] | None = None) -> Any:
        with closing(self.open("GET", path, query)) as answer:
            return json.load(answer)

    def post(self, path: str, body: Any) -> Any:
        with closing(self.open("POST", path, body=body)) as answer:
            return json.load(answer)

    def events(self, after: int) -> Generator[tuple[str, Any], None, None]:
        """The events of the feed as (name, data). A stream that is cut is resumed."""
        while True:
            with closing(self.open("GET", "/v1/jobs/events", {"after": after})) as answer:
                name = ""
                for line in answer:
                    field, _, value = line.decode().rstrip("\n").partition(": ")
                    if field == "id":
                        after = int(value)
                    elif field == "event":
                        name = value
                    elif field == "data":
                        yield name, json.loads(value)

    def open(self, method: str, path: str, query: Mapping[str, Any] | None = None, body: Any = None) -> Any:
        """Raises ServerRefused with what the server says."""
        given = {name: value for name, value in (query or {}).items() if value is not None}
        address = self._url + path + (f"?{urllib.parse.urlencode(given, doseq=True)}" if given else "")
        data = None if body is None else json.dumps(body).encode()
        headers = self._headers | ({"Content-Type": "application/json"} if data else {})
        try:
            return urllib.request.urlopen(
                urllib.request.Request(address, data, headers, method=method), timeout=SECONDS
            )
        except urllib.error.HTTPError as error:
            raise ServerRefused(_refusal(error)) from None
        except (urllib.error.URLError, OSError) as error:
            why = getattr(error, "reason", error)
            raise ServerRefused(f"no server answers at {self._url} ({why}): start one with `ponder serve`") from None


def _refusal(error: urllib.error.HTTPError) -> str:
    try:
        said = json.load(error)["error"]["message"]
    except (ValueError, KeyError, TypeError):
        said = error.reason
    return f"the server refuses ({error.code}): {said}"
