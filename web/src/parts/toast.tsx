// Short messages at the bottom, some of which can still be taken back.
import { signal } from "@preact/signals";
import { Icon } from "./icon";

interface Toast {
  id: number;
  text: string;
  bad: boolean;
  undo?: () => void;
}

const SECONDS = 5;
const toasts = signal<Toast[]>([]);
let next = 0;

const drop = (id: number) => (toasts.value = toasts.value.filter((each) => each.id !== id));

export function toast(text: string, options: { bad?: boolean; undo?: () => void } = {}) {
  const id = ++next;
  const made: Toast = { id, text, bad: options.bad ?? false };
  if (options.undo) made.undo = options.undo;
  toasts.value = [...toasts.value.slice(-2), made];
  setTimeout(() => drop(id), (options.bad ? 2 : 1) * SECONDS * 1000);
  return () => drop(id);
}

/** Does something in five seconds, unless it is taken back; at once if the page is left. */
export function later(text: string, act: (leaving: boolean) => void) {
  let over = false;
  const run = (leaving: boolean) => {
    if (over) return;
    over = true;
    removeEventListener("pagehide", leave);
    act(leaving);
  };
  const leave = () => run(true);
  addEventListener("pagehide", leave);
  const timer = setTimeout(() => run(false), SECONDS * 1000);
  const close = toast(text, {
    undo: () => {
      over = true;
      clearTimeout(timer);
      removeEventListener("pagehide", leave);
      close();
    },
  });
}

export function Toasts() {
  return (
    <div class="toasts" role="region" aria-label="Messages" aria-live="polite">
      {toasts.value.map((each) => (
        <div key={each.id} class={`toast${each.bad ? " bad" : ""}`}>
          <Icon name={each.bad ? "needs" : "check"} />
          <span>{each.text}</span>
          {each.undo && (
            <button class="link" onClick={each.undo}>
              Undo
            </button>
          )}
          <button class="quiet square" onClick={() => drop(each.id)}>
            <Icon name="close" />
            <span class="hidden">Close this message</span>
          </button>
        </div>
      ))}
    </div>
  );
}
