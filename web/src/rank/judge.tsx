// One set after the other: blind, by letters, until nothing is left.
import { useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { ApiError, download, wordsOf } from "../api/client";
import { exportOf, judge, nextSet, readAgreement, type Agreed, type Agreement, type NextSet } from "../api/rankings";
import { useShortcuts } from "../keys";
import { Icon } from "../parts/icon";
import { toast } from "../parts/toast";
import { href } from "../router";
import { count, plural } from "../text/format";
import { Markdown } from "../text/markdown";
import { back, LETTERS, NONE, ordinal, placed, put, rankOf, text, tie, type Order } from "./order";

const RATER = "ponder.rater";
const AGREEMENT_EVERY = 5; // judgements

export function Judge({ name }: { name: string }) {
  const rater = useSignal(sessionStorage.getItem(RATER) ?? "me");
  const state = useSignal<NextSet | undefined>(undefined);
  const shownTo = useSignal(""); // whose set is shown: after a change of rater not yet that of the new one
  const agreement = useSignal<Agreement | undefined>(undefined);
  const order = useSignal<Order>(NONE);
  const reason = useSignal("");
  const problem = useSignal("");
  const sending = useSignal(false);
  const shownAt = useRef(Date.now());
  const reasonField = useRef<HTMLInputElement>(null);
  const top = useRef<HTMLDivElement>(null);

  const show = (next: NextSet, to: string) => {
    if (to !== rater.value) return;
    state.value = next;
    shownTo.value = to;
    order.value = NONE;
    reason.value = "";
    reasonField.current?.blur(); // letters are for the next answers again
    shownAt.current = Date.now();
    top.current?.scrollTo({ top: 0 });
    if (next.judged % AGREEMENT_EVERY === 0 || !next.shown) void readAgreement(name).then((found) => (agreement.value = found));
  };
  const begin = (to: string = rater.value) =>
    nextSet(name, to).then(
      (next) => show(next, to),
      (error) => {
        problem.value = error instanceof ApiError && error.status === 404 ? "There is no such ranking." : wordsOf(error);
      },
    );
  useEffect(() => {
    void begin();
    void readAgreement(name).then(
      (found) => (agreement.value = found),
      () => {},
    );
  }, [name, rater.value]);

  const shown = state.value?.shown;
  const letters = LETTERS.slice(0, shown?.answers.length ?? 0).split("");

  const send = async (skip: boolean) => {
    const by = rater.value;
    if (!shown || shownTo.value !== by || sending.value || (!skip && placed(order.value).length < 2)) return;
    sending.value = true;
    try {
      const seconds = Math.min(86_400, (Date.now() - shownAt.current) / 1000);
      const said = skip ? { skip } : { order: text(order.value) };
      show(await judge(name, { rater: by, ticket: shown.ticket, reason: reason.value.trim(), seconds, ...said }), by);
    } catch (error) {
      toast(wordsOf(error), { bad: true });
      if (error instanceof ApiError && error.status === 409) await begin();
    } finally {
      sending.value = false;
    }
  };
  const place = (letter: string) => {
    if (letters.includes(letter)) order.value = put(order.value, letter);
  };

  useShortcuts([
    {
      keys: letters,
      says: "This answer is the next best",
      act: (event) => place(event.key),
    },
    { keys: ["="], says: "The next letter is as good as the last", act: () => (order.value = tie(order.value)) },
    { keys: ["Backspace"], says: "Take the last letter back", act: () => (order.value = back(order.value)) },
    { keys: ["Enter"], says: "Judge, and go on", act: (event) => onPage(event) && void send(false) },
    { keys: ["r"], says: "Write a reason", act: () => reasonField.current?.focus() },
    { keys: ["s"], says: "Skip this one", act: () => void send(true) },
  ]);

  if (problem.value)
    return (
      <div class="blank" role="alert" data-ready="rank">
        <h1>{problem.value}</h1>
        <p>
          <a class="button" href={href("/rank")}>
            All rankings
          </a>
        </p>
      </div>
    );
  if (!state.value) return <div class="blank" aria-busy="true" />;
  const { judged, left } = state.value;
  const all = judged + left;
  const enough = placed(order.value).length >= 2;
  const ready = shownTo.value === rater.value;

  return (
    <div class="judgepage" data-ready="rank" data-judged={ready ? judged : undefined} aria-busy={!ready} ref={top}>
      <header class="judgebar">
        <a class="back" href={href("/rank")}>
          <Icon name="left" />
          Rankings
        </a>
        <h1 class="clip">{name}</h1>
        <span class="progressbar" role="progressbar" aria-label="Judged" aria-valuenow={judged} aria-valuemin={0} aria-valuemax={all}>
          <span style={{ transform: `scaleX(${all ? judged / all : 0})` }} />
        </span>
        <span class="soft tabular">
          {count(judged)} of {count(all)}
        </span>
        <span class="space" />
        <Others agreement={agreement.value} rater={rater.value} />
        <label class="rater">
          <span class="soft">Rater</span>
          <input
            value={rater.value}
            maxLength={64}
            onChange={(event) => {
              rater.value = event.currentTarget.value.trim() || "me";
              event.currentTarget.value = rater.value;
              sessionStorage.setItem(RATER, rater.value);
            }}
          />
        </label>
      </header>

      {shown ? (
        <div class="judging">
          <section class="prompt" aria-label="Prompt">
            {shown.prompt.map((turn, at) => (
              <div key={at}>
                {shown.prompt.length > 1 && <b class="soft">{turn.role}</b>}
                <p class={turn.text.length > 200 ? "" : "short"}>{turn.text}</p>
              </div>
            ))}
          </section>
          <ol class={`answers${shown.answers.some((each) => each.length > 700) ? " long" : ""}`} key={shown.ticket}>
            {shown.answers.map((answer, at) => {
              const letter = letters[at]!;
              const rank = rankOf(order.value, letter);
              return (
                <li key={letter} class={`candidate${rank ? " placed" : ""}${rank?.rank === 1 ? " best" : ""}`}>
                  <button
                    class="pick"
                    aria-pressed={rank !== undefined}
                    onClick={() => place(letter)}
                  >
                    <span class="hidden">Answer </span>
                    <kbd>{letter.toUpperCase()}</kbd>
                    <span class="rank">{rank ? `${ordinal(rank.rank)}${rank.shared ? " =" : ""}` : ""}</span>
                  </button>
                  <div class="body" onClick={(event) => (event.target as Element).closest("a, pre") || getSelection()?.toString() || place(letter)}>
                    <Markdown text={answer} />
                  </div>
                </li>
              );
            })}
          </ol>
          <footer class="orderbar">
            <p class="order" aria-live="polite" aria-label="Order">
              {order.value.groups.length ? (
                order.value.groups.map((group, at) => (
                  <>
                    {at > 0 && <span class="soft">›</span>}
                    <span class="chip" key={at}>
                      {group.map((each) => each.toUpperCase()).join(" = ")}
                      {order.value.tie && at === order.value.groups.length - 1 && " = …"}
                    </span>
                  </>
                ))
              ) : (
                <span class="soft">Best first: press letters, or click the answers</span>
              )}
            </p>
            <button class="quiet" disabled={!order.value.groups.length} aria-pressed={order.value.tie} onClick={() => (order.value = tie(order.value))}>
              Tie <kbd>=</kbd>
            </button>
            <button class="quiet" disabled={!order.value.groups.length} onClick={() => (order.value = back(order.value))}>
              Back <kbd>⌫</kbd>
            </button>
            <input
              ref={reasonField}
              class="reason"
              aria-label="Reason"
              placeholder="Reason (r)"
              maxLength={4000}
              value={reason.value}
              onInput={(event) => (reason.value = event.currentTarget.value)}
              onKeyDown={(event) => {
                if (event.key === "Enter") void send(false);
                else if (event.key === "Escape") event.currentTarget.blur();
              }}
            />
            <button onClick={() => void send(true)} disabled={sending.value}>
              Skip <kbd>s</kbd>
            </button>
            <button class="primary" disabled={!enough || sending.value} onClick={() => void send(false)}>
              Next <kbd>↵</kbd>
            </button>
          </footer>
        </div>
      ) : (
        <Finished name={name} judged={judged} agreement={agreement.value} />
      )}
    </div>
  );
}

/** Whether a key was not meant for the button that has the focus. */
const onPage = (event: KeyboardEvent) => {
  const button = (event.target as Element).closest("button, a");
  if (!button || button.classList.contains("pick")) return true;
  (button as HTMLElement).click();
  return false;
};

function Others({ agreement, rater }: { agreement: Agreement | undefined; rater: string }) {
  const others = agreement?.raters.filter((each) => each.rater !== rater).length ?? 0;
  if (!agreement || !others) return null;
  return (
    <span class="soft others">
      you + {plural(others, "other")}
      {agreement.alpha && <>: alpha {interval(agreement.alpha)}</>}
    </span>
  );
}

const two = (value: number) => value.toFixed(2);
const interval = ({ value, low, high }: Agreed) => (low === null ? two(value) : `${two(value)} (${two(low)}–${two(high!)})`);

function Finished({ name, judged, agreement }: { name: string; judged: number; agreement: Agreement | undefined }) {
  const save = (kind: "rankings" | "pairs") =>
    download(exportOf(name, kind), `${name}${kind === "pairs" ? ".pairs" : ""}.jsonl`).catch((error) => toast(wordsOf(error), { bad: true }));
  return (
    <div class="finished">
      <span class="badge">
        <Icon name="check" size={20} />
      </span>
      <h2>{judged ? "All judged" : "Nothing to judge"}</h2>
      <p class="soft">{judged ? `You judged ${plural(judged, "set")}, repeats included.` : "Every prompt needs two different answers."}</p>
      {agreement && judged > 0 && (
        <dl class="factlist">
          {agreement.raters.map((each) => (
            <div key={each.rater}>
              <dt>{each.rater}</dt>
              <dd>
                {count(each.judged)} judged{each.skipped > 0 && `, ${each.skipped} skipped`}
              </dd>
            </div>
          ))}
          <Figure name="Agreement with yourself, of pairs shown twice" found={agreement.with_self} percent />
          <Figure name="Pairs that raters order alike" found={agreement.pairs} percent />
          <Figure name="Krippendorff's alpha, ordinal" found={agreement.alpha} />
        </dl>
      )}
      {judged > 0 && (
        <>
          <p class="row center">
            <button class="primary large" onClick={() => void save("rankings")}>
              <Icon name="export" />
              Judgements for training
            </button>
            <button class="large" onClick={() => void save("pairs")}>
              <Icon name="export" />
              Pairs for TRL
            </button>
          </p>
          <p class="soft">
            A recipe learns from them by <code>preferences = "{name}.jsonl"</code> in its section <code>reward</code> or <code>dpo</code>.
          </p>
        </>
      )}
    </div>
  );
}

function Figure({ name, found, percent }: { name: string; found: Agreed | null; percent?: boolean }) {
  if (!found) return null;
  const shown = (value: number) => (percent ? `${Math.round(100 * value)}%` : two(value));
  return (
    <div>
      <dt>{name}</dt>
      <dd>
        <b>{shown(found.value)}</b>
        <span class="soft">
          {" "}
          {found.low !== null && `${shown(found.low)}–${shown(found.high!)}, `}
          {plural(found.count, "pair")}
        </span>
      </dd>
    </div>
  );
}
