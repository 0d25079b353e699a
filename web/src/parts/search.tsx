import { createRef } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { go, route, setParams } from "../router";
import { Icon } from "./icon";

export const searchField = createRef<HTMLInputElement>();

const WAIT = 250; // milliseconds without a letter, after which the search begins

/** The search of the board: what it looks for stands in the address. */
export function Search() {
  const timer = useRef(0);
  const wanted = route.value.params.get("q") ?? "";
  const begin = (text: string) => {
    clearTimeout(timer.current);
    timer.current = setTimeout(() => {
      if (route.value.path === "/") setParams({ q: text || undefined });
      else if (text) go("/", { q: text });
    }, WAIT) as unknown as number;
  };
  useEffect(() => {
    const field = searchField.current;
    if (field && document.activeElement !== field) field.value = wanted;
  }, [wanted]);
  return (
    <div class="search" role="search">
      <Icon name="search" />
      <input
        ref={searchField}
        type="search"
        aria-label="Search jobs"
        placeholder="Search jobs"
        defaultValue={wanted}
        onInput={(event) => begin(event.currentTarget.value)}
        onKeyDown={(event) => {
          if (event.key === "Escape") event.currentTarget.blur();
        }}
      />
      <kbd aria-hidden="true">/</kbd>
    </div>
  );
}
