// Where the page is, kept in the address after the "#": it never reaches the server or its logs, and works under any
// prefix of a proxy. An address selects what is shown; it never acts.
import { signal } from "@preact/signals";

export interface Route {
  /** "/", "/jobs/ID" */
  path: string;
  /** Filters and the like, from after the "?" */
  params: URLSearchParams;
}

export const route = signal<Route>(read());

export function startRouter() {
  route.value = read();
  addEventListener("hashchange", () => (route.value = read()));
}

export function href(path: string, params: Record<string, string | undefined> = {}) {
  const given = Object.entries(params).filter((each): each is [string, string] => Boolean(each[1]));
  const text = new URLSearchParams(given).toString();
  return `#${path}${text && `?${text}`}`;
}

export function go(path: string, params: Record<string, string | undefined> = {}) {
  location.hash = href(path, params).slice(1);
}

/** Changes filters in place: no step back for each letter of a search. */
export function setParams(changes: Record<string, string | undefined>) {
  const merged = { ...Object.fromEntries(route.value.params), ...changes };
  history.replaceState(null, "", href(route.value.path, merged));
  route.value = read();
}

function read(): Route {
  const [path = "", search = ""] = location.hash.replace(/^#/, "").split(/\?(.*)/s);
  return { path: path.startsWith("/") ? path : "/", params: new URLSearchParams(search) };
}
