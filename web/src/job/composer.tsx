// Two intents, two buttons: steer what is being thought now, or follow up once it is done.
import { signal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { doOne } from "../actions";
import type { WholeJob } from "../api/jobs";
import { Icon } from "../parts/icon";
import { toast } from "../parts/toast";
import { plural } from "../text/format";

const drafts = signal<Record<string, string>>({}); // by job, so that a look at another one loses nothing

interface Props {
  job: WholeJob;
  focus: boolean;
}

export function Composer({ job, focus }: Props) {
  const field = useRef<HTMLTextAreaElement>(null);
  const text = drafts.value[job.id] ?? "";
  const running = job.state === "in_progress" || job.state === "queued";
  const closed = job.state === "cancelled" || job.state === "failed";
  useEffect(() => {
    if (focus) field.current?.focus();
  }, [focus, job.id]);
  if (closed) return null;

  async function send(when: "now" | "after") {
    if (!text.trim()) return;
    if (await doOne(job, "steer", { text: text.trim(), when })) {
      drafts.value = { ...drafts.value, [job.id]: "" };
      toast(when === "now" ? "Steered: it takes this in at the next token" : running ? "It will go on with this when it is done" : "Asked");
    }
  }

  return (
    <form
      class="composer"
      onSubmit={(event) => {
        event.preventDefault();
        void send(running ? "now" : "after");
      }}
    >
      {job.follow_ups.length > 0 && (
        <p class="soft">
          {plural(job.follow_ups.length, "follow-up")} waiting: “{job.follow_ups[0]!.slice(0, 80)}”
        </p>
      )}
      <div class="row">
        <textarea
          ref={field}
          rows={1}
          aria-label={running ? "Steer or follow up" : "Follow up"}
          placeholder={running ? "Steer it while it thinks, or say what comes after" : "Follow up: it goes on from this answer"}
          value={text}
          onInput={(event) => (drafts.value = { ...drafts.value, [job.id]: event.currentTarget.value })}
          onKeyDown={(event) => {
            if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) void send(running ? "now" : "after");
            if (event.key === "Escape") event.currentTarget.blur();
          }}
        />
        {running && (
          <button type="button" disabled={!text.trim()} onClick={() => void send("after")}>
            After it is done
          </button>
        )}
        <button class="primary" disabled={!text.trim()}>
          <Icon name={running ? "steer" : "send"} />
          {running ? "Steer now" : "Follow up"}
        </button>
      </div>
    </form>
  );
}
