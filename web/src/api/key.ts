// The API key: typed once and kept in this variable, or in sessionStorage where that was asked for. Never a cookie
// (cookies ignore ports, so every other server on this machine would get it), never localStorage.
import { signal } from "@preact/signals";

const STORED = "ponder.key";

export type Access = "open" | "needed" | "refused";

let key = sessionStorage.getItem(STORED) ?? "";

/** Whether requests are answered, as far as is known. */
export const access = signal<Access>("open");
/** Changes with the key, so that what was read under another one is read again. */
export const keyNumber = signal(0);

export const currentKey = () => key;
export const isKept = () => sessionStorage.getItem(STORED) !== null;

export function setKey(value: string, keep: boolean) {
  key = value.trim();
  if (keep && key) sessionStorage.setItem(STORED, key);
  else sessionStorage.removeItem(STORED);
  access.value = "open";
  keyNumber.value += 1;
}

export function forgetKey() {
  setKey("", false);
  access.value = "needed";
}

/** Takes the key out of an address that ends in #key=…, before anything else sees it. */
export function readKeyFromAddress() {
  const found = /^#key=([^&]+)(?:&to=(.*))?$/.exec(location.hash);
  if (!found) return;
  history.replaceState(null, "", `${location.pathname}#${found[2] ?? "/"}`);
  setKey(decodeURIComponent(found[1]!), false);
}
