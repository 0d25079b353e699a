// The finished jobs of a batch as answers to rank: those that ask the same stand together.
import { getJob, listJobs, textOf, type Job } from "../api/jobs";
import type { OfferedSet } from "../api/rankings";

const TITLE = 200; // characters of a question that lists show

export async function answersOfBatch(batch: string): Promise<OfferedSet[]> {
  const found = new Map<string, OfferedSet>();
  for (let after: string | undefined; ; ) {
    const page = await listJobs(["completed"], { batch }, { sort: "created", limit: 200, ...(after && { after }) });
    for (const job of page.data) {
      const { asked, answer } = await wholeTexts(job);
      const set = found.get(asked) ?? { prompt: asked, answers: [] };
      set.answers.push({ text: answer, made: [job.model, job.effort, job.strategy ?? "direct"].filter(Boolean).join(", ") });
      found.set(asked, set);
    }
    if (!page.has_more || !page.next) break;
    after = page.next;
  }
  return [...found.values()]
    .map((set) => ({ ...set, answers: set.answers.slice(0, 26) }))
    .filter((set) => new Set(set.answers.map((answer) => answer.text.trim())).size > 1);
}

/** What was asked and answered; lists show only the beginning of long texts. */
async function wholeTexts(job: Job) {
  const shown = job.answer ?? "";
  if (job.title.length < TITLE && job.answer_length <= shown.length) return { asked: job.title, answer: shown };
  const whole = await getJob(job.id);
  const turns = typeof whole.input === "string" ? [] : whole.input.filter((item) => item.role === "user");
  return { asked: typeof whole.input === "string" ? whole.input : textOf(turns.at(-1)?.content), answer: whole.answer ?? "" };
}
