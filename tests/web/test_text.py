"""Text that would run if it became markup, in every field that shows text: nothing runs, and nothing leaves."""

from __future__ import annotations

import re
from typing import Any

import httpx2 as httpx
import pytest
from browsing import visit
from live import Live

pytestmark = pytest.mark.browser

RUNS = "window.ran=1"
SOURCE = "https://evil.example/x"
PAYLOADS = [
    f"<script>{RUNS}</script>",
    f"<script src={SOURCE}></script>",
    f"<img src=x onerror={RUNS}>",
    f"<img src={SOURCE}>",
    f"<svg onload={RUNS}>",
    f"<svg><script>{RUNS}</script></svg>",
    f"<svg><animate onbegin={RUNS} attributeName=x dur=1s>",
    f"<iframe srcdoc='<script>parent.{RUNS}</script>'></iframe>",
    f"<iframe src={SOURCE}></iframe>",
    f"<iframe src=javascript:{RUNS}></iframe>",
    f"<object data={SOURCE}></object>",
    f"<embed src={SOURCE}>",
    f"<link rel=stylesheet href={SOURCE}>",
    f"<link rel=prefetch href={SOURCE}>",
    f"<base href={SOURCE}>",
    f"<meta http-equiv=refresh content='0;url={SOURCE}'>",
    f"<form action={SOURCE}><button>press</button></form>",
    f"<input autofocus onfocus={RUNS}>",
    f"<details open ontoggle={RUNS}>",
    f"<video><source onerror={RUNS}></video>",
    f"<audio src=x onerror={RUNS}>",
    f"<body onload={RUNS}>",
    f"<marquee onstart={RUNS}>",
    f"<math><mtext><style><img src=x onerror={RUNS}></style></mtext></math>",
    f"<style>@import '{SOURCE}';</style>",
    f"<style>*{{background:url({SOURCE})}}</style>",
    f"<div style='background:url({SOURCE})'>x</div>",
    f"<a href='javascript:{RUNS}'>x</a>",
    f"<template><script>{RUNS}</script></template>",
    f"<noscript><p title='</noscript><img src=x onerror={RUNS}>'></noscript>",
    f"<!--><img src=x onerror={RUNS}>-->",
    f"</pre></div><script>{RUNS}</script>",
    f"[x](javascript:{RUNS})",
    f"[x](JaVaScRiPt:{RUNS})",
    f"[x](java\tscript:{RUNS})",
    f"[x](data:text/html,<script>{RUNS}</script>)",
    f"[x](vbscript:{RUNS})",
    f"[x](<javascript:{RUNS}>)",
    f"[x]\n\n[x]: javascript:{RUNS}",
    f"![x]({SOURCE})",
    f"![x](javascript:{RUNS})",
    f"![x]\n\n[x]: {SOURCE}",
    f"[![x]({SOURCE})]({SOURCE})",
    f"<javascript:{RUNS}>",
    f"<{SOURCE}>",
    f"{SOURCE}?stolen",
    f"```html\n<script>{RUNS}</script>\n```",
    f"`<img src=x onerror={RUNS}>`",
    f"| a |\n|---|\n| <img src=x onerror={RUNS}> |",
    f"> <svg onload={RUNS}>",
    f"1. <img src=x onerror={RUNS}>\n2. [y](javascript:{RUNS})",
    f"# <img src=x onerror={RUNS}>",
    f"&lt;script&gt;{RUNS}&lt;/script&gt;",
    f'"><script>{RUNS}</script>',
    f"' onmouseover={RUNS} x='",
    f"javascript:{RUNS}",
    f"{{{{constructor.constructor('{RUNS}')()}}}}",
    f"${{{RUNS}}}",
    "__proto__",
    "\u202e<b>turned</b>\u2066",
]
MARKUP = "script, iframe, object, embed, img, video, audio, source, base, link, meta, style, form[action], [onerror]"


def test_nothing_runs_and_nothing_leaves(page: Any, live: Live) -> None:
    assert len(set(PAYLOADS)) >= 50
    away: list[str] = []
    page.on("request", lambda asked: away.append(asked.url) if not asked.url.startswith((live.root, "blob:")) else None)
    page.on("dialog", lambda dialog: away.append(dialog.message))
    jobs = [
        {
            "input": f"echo {payload}",
            "custom_id": payload,
            "labels": [payload.replace("\n", " ")[:60]],
            "strategy": "consensus(samples=2)" if n % 2 else None,
            "model": "said",
        }
        for n, payload in enumerate(PAYLOADS)
    ]
    for job in jobs:
        if job["strategy"] is None:
            del job["strategy"]
    ids = []
    for job, payload in zip(jobs, PAYLOADS, strict=True):
        body = {"defaults": {"model": "said"}, "jobs": [job], "batch": payload.replace("\n", " ")[:60]}
        answer = httpx.post(f"{live.url}/jobs", json=body, timeout=120)
        assert answer.status_code == 200, answer.text
        ids.append(answer.json()["data"][0]["id"])

    visit(page)
    page.locator(".column.done header .number", has_text=str(len(ids))).wait_for()
    clean(page)
    for handle in range(0, 8000, 700):
        page.locator(".scroller[data-column=done]").evaluate(f"element => element.scrollTop = {handle}")
    clean(page)
    visit(page, "/?view=list")
    clean(page)
    for n, (id, payload) in enumerate(zip(ids, PAYLOADS, strict=True)):
        page.goto(f"/#/jobs/{id}")
        page.locator(".jobpage[data-state=completed] h1").get_by_text("echo", exact=False).wait_for()
        if n == 0:
            page.get_by_role("button", name="Reasoning").click()
        page.locator("button.sample").first.click()
        if re.match("<[a-z]+[ >]", payload):  # it stands there as the text it is
            assert payload.split()[0].split(">")[0] in page.locator(".jobpage .answer").inner_text()
        clean(page)
    visit(page, f"/compare?ids={ids[0]},{ids[1]}", "compare")
    clean(page)
    page.keyboard.press("n")
    page.get_by_label("Questions").fill("\n".join(PAYLOADS).replace("`", "'"))
    clean(page)
    assert not away


def clean(page: Any) -> None:
    assert page.evaluate("window.ran") is None
    assert page.locator("#app").locator(MARKUP).count() == 0
    assert page.locator("#app a[href]:not([href^='#']):not([href^='http'])").count() == 0
