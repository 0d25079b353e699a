// Asking for the API key, and forgetting it.
import { useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { access, currentKey, forgetKey, isKept, keyNumber, setKey } from "../api/key";
import { Icon } from "./icon";

export function KeyPage() {
  const field = useRef<HTMLInputElement>(null);
  const keep = useSignal(isKept());
  useEffect(() => field.current?.focus(), []);
  return (
    <div class="blank" data-ready="key">
      <form
        class="keyform"
        onSubmit={(event) => {
          event.preventDefault();
          if (field.current!.value.trim()) setKey(field.current!.value, keep.value);
        }}
      >
        <span class="badge">
          <Icon name="key" size={20} />
        </span>
        <h1>Your API key</h1>
        <p>
          This server answers those who have a key. Its administrator makes one with{" "}
          <code>ponder serve --new-key NAME --keys FILE</code>.
        </p>
        {access.value === "refused" && (
          <p class="wrong" role="alert">
            The server does not know this key, or it was revoked.
          </p>
        )}
        <label>
          Key
          <input ref={field} type="password" autocomplete="current-password" name="key" spellcheck={false} required />
        </label>
        <label class="switch">
          <input type="checkbox" checked={keep.value} onChange={(event) => (keep.value = event.currentTarget.checked)} />
          Keep it until this tab is closed
        </label>
        <button class="primary large">Continue</button>
      </form>
    </div>
  );
}

export function KeyMenu() {
  if (keyNumber.value < 0 || !currentKey() || access.value !== "open") return null;
  return (
    <button class="quiet square" onClick={forgetKey} title="Forget the API key">
      <Icon name="key" />
      <span class="hidden">Forget the API key</span>
    </button>
  );
}
