// What a job cost, by strategy and role, and what the next turn will see of it.
import type { WholeJob } from "../api/jobs";
import { count, plural, short } from "../text/format";
import { promptOf, type SampleRow, type TraceRow } from "./trace";

export function Bill({ job }: { job: WholeJob }) {
  if (!job.usage) return <p class="soft">Nothing is billed yet.</p>;
  const lines = job.bill;
  return (
    <table class="bill">
      <thead>
        <tr>
          <th scope="col">For</th>
          <th scope="col" class="right">
            In
          </th>
          <th scope="col" class="right">
            Cached
          </th>
          <th scope="col" class="right">
            Out
          </th>
        </tr>
      </thead>
      <tbody>
        {lines.map((line, at) => (
          <tr key={at}>
            <th scope="row">
              {line.role}
              <span class="soft">{[line.strategy, line.model].filter(Boolean).join(", ")}</span>
            </th>
            <td class="right">{count(line.input_tokens)}</td>
            <td class="right">{count(line.cached_tokens)}</td>
            <td class="right">{count(line.output_tokens)}</td>
          </tr>
        ))}
      </tbody>
      <tfoot>
        <tr>
          <th scope="row">
            In all
            <span class="soft">
              {job.attempts.length > 1 ? plural(job.attempts.length, "attempt") : `${count(job.usage.reasoning_tokens)} of it thinking`}
            </span>
          </th>
          <td class="right">{count(job.usage.input_tokens)}</td>
          <td class="right">{count(job.usage.cached_tokens)}</td>
          <td class="right">{count(job.usage.output_tokens)}</td>
        </tr>
      </tfoot>
    </table>
  );
}

/** What the next turn keeps of the window: the question and the answer. The reasoning is discarded. */
export function Context({ job, chosen, rows }: { job: WholeJob; chosen: SampleRow | undefined; rows: TraceRow[] }) {
  const window = job.window;
  const last = job.attempts.at(-1);
  const usage = chosen?.usage ?? (last?.usage && (job.strategy ?? "direct") === "direct" ? last.usage : undefined);
  if (!window || !usage)
    return <p class="soft">{job.usage ? "The question and the answer; the reasoning is discarded." : "Known when it has answered."}</p>;
  const question = chosen ? promptOf(rows, chosen) : usage.input_tokens;
  const answer = Math.max(0, usage.output_tokens - usage.reasoning_tokens);
  const kept = question + answer;
  const share = (value: number) => `${Math.min(100, (100 * value) / window)}%`;
  return (
    <div class="context">
      <div
        class="stack"
        role="img"
        aria-label={`${count(kept)} of ${count(window)} tokens are kept for the next turn; ${count(usage.reasoning_tokens)} of reasoning are discarded`}
      >
        <span class="asked" style={{ width: share(question) }} />
        <span class="answered" style={{ width: share(answer) }} />
        <span class="freed" style={{ width: share(usage.reasoning_tokens) }} />
      </div>
      <ul>
        <li>
          <span class="key asked" aria-hidden="true" />
          {count(question)} of the question, kept
        </li>
        <li>
          <span class="key answered" aria-hidden="true" />
          {count(answer)} of the answer, kept
        </li>
        <li>
          <span class="key freed" aria-hidden="true" />
          {count(usage.reasoning_tokens)} of reasoning, discarded
        </li>
      </ul>
      <p class="soft">
        {short(Math.max(0, window - kept))} of {short(window)} tokens are free for the next turn.
      </p>
      {(last?.dropped_turns ?? 0) > 0 && (
        <p class="warn">
          {plural(last!.dropped_turns, "earlier message")} did not fit the window: the model has not seen {last!.dropped_turns === 1 ? "it" : "them"}.
        </p>
      )}
    </div>
  );
}
