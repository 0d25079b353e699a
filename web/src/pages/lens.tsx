// What the model computed at every token of a job's answer. The server computes it; the drawing is that of `ponder inspect`.
import { useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { drawLens } from "../../../src/ponder/lens/view.js";
import { wordsOf } from "../api/client";
import { branchJob, getLens } from "../api/jobs";
import { useShortcuts, type Shortcut } from "../keys";
import type { PageProps } from "../pages";
import { Icon } from "../parts/icon";
import { toast } from "../parts/toast";
import { go, href, route } from "../router";
import { takeNow } from "../store";

export default function LensPage({ rest: id }: PageProps) {
  const root = useRef<HTMLDivElement>(null);
  const keys = useSignal<Shortcut[]>([]);
  const state = useSignal<"computing" | "drawn" | "failed">("computing");
  const problem = useSignal("");
  const attempt = route.value.params.get("attempt") ?? "";

  useEffect(() => {
    const stop = new AbortController();
    state.value = "computing";
    keys.value = [];

    async function branch(place: number, token: number) {
      try {
        const job = await branchJob(id, { place, token, ...(attempt ? { attempt: Number(attempt) } : {}) });
        takeNow(job);
        go(`/jobs/${job.id}`);
      } catch (error) {
        toast(wordsOf(error), { bad: true });
      }
    }

    async function read() {
      try {
        const data = await getLens(id, attempt, stop.signal);
        if (stop.signal.aborted || !root.current) return;
        keys.value = await drawLens(root.current, data, { branch: (place, token) => void branch(place, token) });
        state.value = "drawn";
      } catch (error) {
        if (stop.signal.aborted) return;
        problem.value = wordsOf(error);
        state.value = "failed";
      }
    }
    void read();
    return () => stop.abort();
  }, [id, attempt]);

  useShortcuts([...keys.value, { keys: ["Escape"], says: "Back to the job", act: () => go(`/jobs/${id}`) }]);

  return (
    <div class="lenspage" data-ready={state.value === "computing" ? undefined : "lens"} aria-busy={state.value === "computing"}>
      <p>
        <a class="back" href={href(`/jobs/${id}`)}>
          <Icon name="left" />
          The job
        </a>
      </p>
      {state.value === "computing" && <p class="soft" role="status">The model reads its answer again, and keeps what it computes.</p>}
      {state.value === "failed" && (
        <div class="blank" role="alert">
          <h1>There is nothing to look into</h1>
          <p>{problem.value}</p>
        </div>
      )}
      <div class="lens" ref={root} hidden={state.value !== "drawn"} />
    </div>
  );
}
