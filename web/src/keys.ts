// Single keys: a page says which ones it takes, and the list of "?" is made of them. All can be switched off (WCAG
// 2.1.4), and none acts while a field has the focus.
import { signal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";

export interface Shortcut {
  keys: string[];
  says: string;
  act: (event: KeyboardEvent) => void;
}

const OFF = "ponder.keys.off";
const shown = new Set<{ current: Shortcut[] }>();

export const keysOn = signal(localStorage.getItem(OFF) === null);

export function switchKeys(on: boolean) {
  if (on) localStorage.removeItem(OFF);
  else localStorage.setItem(OFF, "1");
  keysOn.value = on;
}

/** The shortcuts that hold while the caller is drawn; the one drawn last has the first say. */
export function useShortcuts(shortcuts: Shortcut[]) {
  const latest = useRef(shortcuts);
  latest.current = shortcuts;
  useEffect(() => {
    shown.add(latest);
    return () => void shown.delete(latest);
  }, []);
}

export const currentShortcuts = () => [...shown].flatMap((each) => each.current);

export function startShortcuts() {
  addEventListener("keydown", (event) => {
    if (!keysOn.value || event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    const target = event.target as HTMLElement;
    if (target.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName)) return;
    if (document.querySelector("dialog[open]")) return;
    for (const layer of [...shown].reverse()) {
      const found = layer.current.find((each) => each.keys.includes(event.key));
      if (found) {
        event.preventDefault();
        found.act(event);
        return;
      }
    }
  });
}
