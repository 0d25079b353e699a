// What surrounds every page: the bar, the question for a key, messages, the list of keys, and what a screen reader says.
import { useSignal, useSignalEffect } from "@preact/signals";
import type { ComponentType } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { access, keyNumber } from "./api/key";
import { connection } from "./api/feed";
import { openHandOver, HandOverDialog } from "./handover/dialog";
import { useShortcuts } from "./keys";
import { PAGES, type PageEntry, type PageProps } from "./pages";
import { Icon } from "./parts/icon";
import { HelpDialog, openHelp } from "./parts/help";
import { KeyPage, KeyMenu } from "./parts/keypage";
import { Toasts } from "./parts/toast";
import { Search, searchField } from "./parts/search";
import { go, href, route } from "./router";
import { columns, jobs, load, needing, news } from "./store";

const loaded = new Map<string, ComponentType<PageProps>>();

export function Shell() {
  const [, name = "", rest = ""] = /^\/([^/]*)\/?(.*)$/.exec(route.value.path) ?? [];
  const entry = PAGES.find((each) => each.name === name) ?? PAGES[0]!;
  const asksForKey = access.value !== "open";
  useSignalEffect(() => {
    keyNumber.value;
    void load();
  });
  useSignalEffect(() => {
    const waits = needing.value ? `(${needing.value}) ` : "";
    document.title = `${waits}${entry.title} – Ponder`;
  });
  useShortcuts([
    { keys: ["/"], says: "Search", act: () => searchField.current?.focus() },
    { keys: ["n"], says: "Hand over new work", act: () => openHandOver() },
    { keys: ["."], says: "Next job that needs you", act: nextThatNeedsYou },
    { keys: ["?"], says: "This list", act: openHelp },
  ]);
  return (
    <>
      <a
        class="skip"
        href="#main"
        onClick={(event) => {
          event.preventDefault();
          document.getElementById("main")?.focus();
        }}
      >
        Skip to the page
      </a>
      <header class="bar">
        <a class="brand" href={href("/")} aria-label="Ponder: the board">
          <Mark />
          <span>Ponder</span>
        </a>
        <nav aria-label="Pages">
          {PAGES.filter((each) => each.listed).map((each) => (
            <a
              key={each.name}
              href={href(`/${each.name}`)}
              aria-current={each === entry || (each.name === "" && entry.name === "jobs") ? "page" : undefined}
            >
              {each.title}
            </a>
          ))}
        </nav>
        <Search />
        <Live />
        <button class="quiet square help" onClick={openHelp} title="Keys and help (?)">
          <Icon name="keyboard" />
          <span class="hidden">Keys and help</span>
        </button>
        <KeyMenu />
        <button class="primary" onClick={() => openHandOver()} title="Hand over work (n)">
          <Icon name="plus" />
          Hand over
        </button>
      </header>
      <main id="main" tabIndex={-1} data-page={entry.name || "board"}>
        {asksForKey ? <KeyPage /> : <Page key={`${entry.name} ${keyNumber.value}`} entry={entry} rest={decodeURIComponent(rest)} />}
      </main>
      <HandOverDialog />
      <HelpDialog />
      <Toasts />
      <Announcer />
    </>
  );
}

function Page({ entry, rest }: { entry: PageEntry; rest: string }) {
  const failed = useSignal(false);
  const found = useSignal(
    entry.lazy ? loaded.get(entry.name) : (entry.page as ComponentType<PageProps>),
  );
  useEffect(() => {
    if (found.value) return;
    (entry.page as () => Promise<{ default: ComponentType<PageProps> }>)()
      .then((module) => {
        loaded.set(entry.name, module.default);
        found.value = module.default;
      })
      .catch(() => (failed.value = true));
  }, []);
  if (failed.value)
    return (
      <div class="blank" role="alert">
        <h1>This page could not be loaded</h1>
        <p>The server cannot be reached, or was updated meanwhile.</p>
        <button onClick={() => location.reload()}>Load again</button>
      </div>
    );
  const Found = found.value;
  return Found ? <Found rest={rest} /> : null;
}

function Mark() {
  return (
    <svg class="mark" width="24" height="24" viewBox="0 0 32 32" aria-hidden="true">
      <rect width="32" height="32" rx="9" />
      <circle cx="9.2" cy="20.5" r="2.2" opacity=".65" />
      <circle cx="15.2" cy="17.2" r="3" opacity=".82" />
      <circle cx="22.6" cy="12.4" r="4.1" />
    </svg>
  );
}

const SAID = { connecting: "Connecting", live: "Live", lost: "Offline" };

function Live() {
  if (access.value !== "open") return null;
  return (
    <span class={`live ${connection.value}`} title={connection.value === "lost" ? "Trying to reach the server" : undefined}>
      <span class="dot" aria-hidden="true" />
      {SAID[connection.value]}
    </span>
  );
}

let lastSeen = "";

export function nextThatNeedsYou() {
  const ids = columns.needs.ids.value.filter((id) => jobs.has(id));
  if (!ids.length) return;
  lastSeen = ids[(ids.indexOf(lastSeen) + 1) % ids.length]!;
  go(`/jobs/${lastSeen}`);
}

/** One polite message at most every five seconds. */
function Announcer() {
  const said = useSignal("");
  const last = useRef(0);
  const timer = useRef(0);
  useSignalEffect(() => {
    const text = news.value;
    if (!text) return;
    clearTimeout(timer.current);
    timer.current = setTimeout(
      () => {
        last.current = Date.now();
        said.value = text;
      },
      Math.max(0, 5000 - (Date.now() - last.current)),
    ) as unknown as number;
  });
  return (
    <div class="hidden" role="status" aria-live="polite">
      {said.value}
    </div>
  );
}
