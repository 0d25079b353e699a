// Two or three jobs side by side: answers first, with the words that differ, bills, and where the reasoning parts.
import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { wordsOf } from "../api/client";
import { getJob, textOf, type WholeJob } from "../api/jobs";
import { Facts, tookWord } from "../board/card";
import { Icon } from "../parts/icon";
import { StatePill } from "../parts/state";
import { href, route } from "../router";
import { diffWords, firstDifference } from "../text/diff";
import { count } from "../text/format";

const MOST = 3;

export default function Compare() {
  const ids = route.value.params.get("ids") ?? "";
  const found = useSignal<WholeJob[] | undefined>(undefined);
  const failed = useSignal("");
  useEffect(() => {
    let gone = false;
    failed.value = "";
    Promise.all(ids.split(",").filter(Boolean).slice(0, MOST).map(getJob)).then(
      (jobs) => !gone && (found.value = jobs),
      (error) => !gone && (failed.value = wordsOf(error)),
    );
    return () => void (gone = true);
  }, [ids]);
  if (failed.value)
    return (
      <div class="blank" role="alert" data-ready="compare">
        <h1>These jobs cannot be compared</h1>
        <p>{failed.value}</p>
      </div>
    );
  const jobs = found.value;
  if (!jobs?.length) return <div class="blank" aria-busy="true" />;
  const first = jobs[0]!;
  return (
    <div class="comparepage" data-ready="compare">
      <div class="jobbar">
        <a class="back" href={href("/")}>
          <Icon name="left" />
          Board
        </a>
      </div>
      <h1>Side by side</h1>
      <div class="sides">
        {jobs.map((job, at) => (
          <section key={job.id} aria-label={`Job ${job.number}`}>
            <p class="row">
              <StatePill job={job} />
              <span class="soft">
                <Facts job={job} />
              </span>
            </p>
            <h2>
              <a href={href(`/jobs/${job.id}`)}>{job.title}</a>
            </h2>
            <div class="answer">
              {at === 0 ? (
                (job.answer ?? "(no answer)")
              ) : (
                <Difference before={first.answer ?? ""} after={job.answer ?? ""} />
              )}
            </div>
            <dl class="factlist">
              {rowsOf(job).map(([name, value]) => (
                <div key={name}>
                  <dt>{name}</dt>
                  <dd class="tabular">{value}</dd>
                </div>
              ))}
              {at > 0 && (
                <div>
                  <dt>Reasoning parts from the first</dt>
                  <dd>{partingOf(first, job)}</dd>
                </div>
              )}
            </dl>
          </section>
        ))}
      </div>
    </div>
  );
}

function Difference({ before, after }: { before: string; after: string }) {
  return (
    <>
      {diffWords(before, after).map((piece, at) =>
        piece.kind === "same" ? (
          piece.text
        ) : piece.kind === "gone" ? (
          <del key={at}>{piece.text}</del>
        ) : (
          <ins key={at}>{piece.text}</ins>
        ),
      )}
    </>
  );
}

function rowsOf(job: WholeJob): [string, string][] {
  const rows: [string, string | null | undefined][] = [
    ["Agreement", job.votes && `${job.votes.agree} of ${job.votes.of}`],
    ["Tokens out", job.usage && count(job.usage.output_tokens)],
    ["of them thinking", job.usage && count(job.usage.reasoning_tokens)],
    ["Tokens in", job.usage && count(job.usage.input_tokens)],
    ["Took", tookWord(job)],
    ["Attempts", job.attempts.length > 1 ? String(job.attempts.length) : null],
  ];
  return rows.filter((each): each is [string, string] => Boolean(each[1]));
}

function partingOf(first: WholeJob, job: WholeJob) {
  const thought = (each: WholeJob) =>
    each.output
      .filter((item) => item.type === "reasoning")
      .map((item) => textOf(item.content))
      .join("\n");
  const [one, other] = [thought(first), thought(job)];
  if (!one || !other) return "no reasoning is kept";
  const line = firstDifference(one, other);
  return line === undefined ? "nowhere" : `at line ${line}`;
}
