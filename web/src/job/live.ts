// The text of a running response, as it comes. Only the tab that is looked at reads it: a browser has six connections.
import { signal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { request } from "../api/client";
import { readEvents } from "../api/sse";

const KEPT = 40_000; // characters of a running thought that are shown
const FLUSH = 250;

export interface LiveText {
  thought: string;
  answer: string;
}

export const liveText = signal<LiveText>({ thought: "", answer: "" });

export function useLiveText(response: string | null, running: boolean) {
  useEffect(() => {
    liveText.value = { thought: "", answer: "" };
    if (!response || !running) return;
    let stop = new AbortController();
    const begin = () => {
      stop.abort();
      if (document.visibilityState === "hidden") return;
      stop = new AbortController();
      void follow(response, stop.signal);
    };
    document.addEventListener("visibilitychange", begin);
    begin();
    return () => {
      document.removeEventListener("visibilitychange", begin);
      stop.abort();
    };
  }, [response, running]);
}

async function follow(response: string, signal: AbortSignal) {
  let thought = "";
  let answer = "";
  let timer: ReturnType<typeof setTimeout> | undefined;
  const show = () => {
    timer = undefined;
    if (!signal.aborted) liveText.value = { thought: thought.slice(-KEPT), answer };
  };
  try {
    const stream = await request("GET", `responses/${encodeURIComponent(response)}?stream=true`, { signal });
    for await (const event of readEvents(stream.body!)) {
      if (event.name === "response.reasoning_text.delta") thought += JSON.parse(event.data).delta;
      else if (event.name === "response.output_text.delta") answer += JSON.parse(event.data).delta;
      else continue;
      timer ??= setTimeout(show, FLUSH);
    }
  } catch {
    // Its job tells how it ends; the text comes whole with it.
  }
}
