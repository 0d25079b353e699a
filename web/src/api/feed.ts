// The one stream of events of a browser. Six connections to a server is all that a browser opens, so with a stream in
// each tab the seventh tab would hang: a lock elects one tab, which reads the stream and passes it on to the others.
import { signal } from "@preact/signals";
import { ApiError, request } from "./client";
import type { Job, Progress } from "./jobs";
import { currentKey } from "./key";
import { readEvents } from "./sse";

export type FeedEvent =
  | { kind: "job"; id: number; job: Job }
  | { kind: "deleted"; id: number; job: string }
  | { kind: "progress"; progress: Progress[] }
  | { kind: "reset" };

export type Connection = "connecting" | "live" | "lost";

export const connection = signal<Connection>("connecting");

const HIDDEN_SECONDS = 60; // after which a hidden tab stops reading
const SHARED = "ponder.feed.";
const PULSE = 20_000; // milliseconds between two signs of life of the tab that reads
const SILENCE = 45_000; // milliseconds without a byte, after which a stream is dead: the server says something every 15 s
const RECENT = 500; // events that the tab that reads keeps for one that has just opened

interface Message {
  event?: FeedEvent;
  state?: Connection;
  /** A tab has read its lists up to this event, and wants those after it again. */
  since?: number;
}

/** Starts reading after event `last`. Returns what ends it. */
export function startFeed(last: number, take: (event: FeedEvent) => void): () => void {
  const name = SHARED + digest(currentKey() + location.pathname);
  const channel = "BroadcastChannel" in self ? new BroadcastChannel(name) : undefined;
  const stop = new AbortController();
  let heard = last;
  let hiddenAt = 0;
  let reading: AbortController | undefined;
  let asked = false;
  let leading = false;
  let recent: FeedEvent[] = [];
  let attempt = new AbortController();

  const note = (event: FeedEvent) => {
    if ("id" in event) heard = Math.max(heard, event.id);
    take(event);
  };
  const show = (state: Connection) => {
    connection.value = state;
    channel?.postMessage({ state } satisfies Message);
  };
  channel?.addEventListener("message", ({ data }: MessageEvent<Message>) => {
    if (data.event) note(data.event);
    if (data.state) connection.value = data.state;
    if (data.since !== undefined && leading)
      for (const event of recent)
        if ("id" in event && event.id > data.since) channel.postMessage({ event } satisfies Message);
  });
  channel?.postMessage({ since: last } satisfies Message);

  async function lead(signal: AbortSignal) {
    let wait = 500;
    let lastByte = 0;
    leading = true;
    const pulse = setInterval(() => {
      channel?.postMessage({ state: connection.value } satisfies Message);
      if (connection.value === "live" && Date.now() - lastByte > SILENCE) attempt.abort();
    }, PULSE);
    const cut = () => attempt.abort();
    signal.addEventListener("abort", cut);
    addEventListener("offline", cut); // the browser may keep a stream open that nothing comes through
    try {
      while (!signal.aborted) {
        attempt = new AbortController();
        try {
          const response = await request("GET", `jobs/events?after=${heard}`, { signal: attempt.signal });
          lastByte = Date.now();
          show("live");
          for await (const each of readEvents(response.body!, () => (lastByte = Date.now()))) {
            wait = 500;
            const event = understood(each.name, each.data, each.id);
            if (!event) continue;
            note(event);
            if ("id" in event) recent = [...recent.slice(1 - RECENT), event];
            channel?.postMessage({ event } satisfies Message);
          }
        } catch (error) {
          if (signal.aborted) return;
          if (error instanceof ApiError && (error.status === 401 || error.status === 403 || error.status === 404)) {
            show("lost");
            if (error.status !== 404) return;
          }
        }
        show("lost");
        await pause(wait * (0.75 + Math.random() / 2), signal);
        wait = Math.min(10_000, wait * 2);
      }
    } finally {
      leading = false;
      clearInterval(pulse);
      removeEventListener("offline", cut);
    }
  }

  function enter() {
    if (asked || stop.signal.aborted) return;
    asked = true;
    reading = new AbortController();
    const mine = reading;
    stop.signal.addEventListener("abort", () => mine.abort());
    const done = () => void (asked = false);
    // Locks exist on https and localhost; elsewhere each tab reads for itself.
    if (!navigator.locks || !channel) void lead(mine.signal).finally(done);
    else
      void navigator.locks
        .request(name, { signal: mine.signal }, () => lead(mine.signal))
        .catch(() => {})
        .finally(done);
    if (navigator.locks && channel && connection.value === "connecting")
      void navigator.locks.query().then((locks) => {
        if (locks.held?.some((lock) => lock.name === name)) connection.value = "live";
      });
  }

  const look = setInterval(() => {
    if (document.visibilityState === "hidden" && Date.now() - hiddenAt > HIDDEN_SECONDS * 1000) reading?.abort();
  }, 5_000);
  const seen = () => {
    if (document.visibilityState === "hidden") hiddenAt = Date.now();
    else enter();
  };
  document.addEventListener("visibilitychange", seen);
  addEventListener("online", enter);
  enter();

  return () => {
    stop.abort();
    clearInterval(look);
    document.removeEventListener("visibilitychange", seen);
    removeEventListener("online", enter);
    channel?.close();
  };
}

function understood(name: string, data: string, id: string): FeedEvent | undefined {
  if (name === "progress") return { kind: "progress", progress: JSON.parse(data) };
  if (name === "job") return { kind: "job", id: Number(id), job: JSON.parse(data) };
  if (name === "deleted") return { kind: "deleted", id: Number(id), job: JSON.parse(data).id };
  if (name === "reset") return { kind: "reset" };
  return undefined;
}

const pause = (milliseconds: number, signal: AbortSignal) =>
  new Promise<void>((resolve) => {
    const timer = setTimeout(resolve, milliseconds);
    const now = () => {
      clearTimeout(timer);
      resolve();
    };
    signal.addEventListener("abort", now, { once: true });
    addEventListener("online", now, { once: true });
  });

/** Another key's feed is not this one's. FNV-1a: nobody gains by undoing it, the key is in this browser anyway. */
function digest(text: string) {
  let hash = 0x811c9dc5;
  for (const character of text) hash = Math.imul(hash ^ character.codePointAt(0)!, 0x01000193);
  return (hash >>> 0).toString(36);
}
