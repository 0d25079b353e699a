// What was pasted or dropped, read as jobs: a question a line, JSON lines, or CSV. Nothing is lost in silence: each line
// that cannot be read is named with its number.
import type { NewJob } from "../api/jobs";

export type Format = "lines" | "whole" | "jsonl" | "csv";

export interface BadLine {
  line: number;
  why: string;
}

export interface ReadJobs {
  jobs: NewJob[];
  /** The line that each job begins on, counted from 1. */
  lines: number[];
  bad: BadLine[];
  /** The columns of a CSV. */
  columns: string[];
}

/** Which column of a CSV is which field; "" leaves it out. */
export type Mapping = Record<string, string>;

export const FIELDS = ["input", "custom_id", "model", "effort", "strategy", "budget", "labels", "instructions"] as const;
const QUESTION = ["input", "question", "prompt", "problem", "text"];

export function guessFormat(text: string, name = ""): Format {
  if (/\.csv$|\.tsv$/i.test(name)) return "csv";
  if (/\.jsonl$|\.ndjson$/i.test(name)) return "jsonl";
  const lines = text.split("\n").filter((line) => line.trim());
  if (lines.length && lines.every((line) => line.trim().startsWith("{"))) return "jsonl";
  const head = lines[0] ? (readCsv(lines[0])[0]?.cells ?? []) : [];
  if (lines.length > 1 && head.length > 1 && head.some((cell) => QUESTION.includes(cell.trim().toLowerCase())))
    return "csv";
  return "lines";
}

export function guessMapping(columns: string[]): Mapping {
  const mapping: Mapping = {};
  for (const column of columns) {
    const name = column.trim().toLowerCase();
    const field = QUESTION.includes(name) ? "input" : name === "id" ? "custom_id" : name;
    const known = (FIELDS as readonly string[]).includes(field) && !Object.values(mapping).includes(field);
    mapping[column] = known ? field : "";
  }
  if (!Object.values(mapping).includes("input") && columns[0] !== undefined) mapping[columns[0]] = "input";
  return mapping;
}

export function readJobs(text: string, format: Format, mapping?: Mapping): ReadJobs {
  const found: ReadJobs = { jobs: [], lines: [], bad: [], columns: [] };
  const take = (line: number, read: NewJob | string) => {
    if (typeof read === "string") found.bad.push({ line, why: read });
    else {
      found.jobs.push(read);
      found.lines.push(line);
    }
  };
  if (format === "whole") {
    if (text.trim()) take(1, { input: text.trim() });
  } else if (format === "lines") {
    text.split(/\r?\n/).forEach((line, at) => line.trim() && take(at + 1, { input: line.trim() }));
  } else if (format === "jsonl") {
    text.split(/\r?\n/).forEach((line, at) => line.trim() && take(at + 1, readObject(line)));
  } else {
    const [head, ...rows] = readCsv(text);
    found.columns = head?.cells ?? [];
    const used = mapping ?? guessMapping(found.columns);
    for (const { line, cells } of rows) take(line, readRow(found.columns, cells, used));
  }
  return found;
}

function readObject(line: string): NewJob | string {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch (error) {
    return `is not JSON: ${(error as Error).message}`;
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) return "is not an object: write {…}";
  const given = value as Record<string, unknown>;
  const question = QUESTION.find((name) => typeof given[name] === "string");
  if (!question) return `has no question: name it "input"`;
  const fields: Record<string, unknown> = {};
  for (const [name, each] of Object.entries(given)) {
    if (name === question || each === null) continue;
    const field = name === "id" ? "custom_id" : name;
    if (!(FIELDS as readonly string[]).includes(field)) return `has a field that is not known: ${JSON.stringify(name)}`;
    if (field === "labels") {
      if (!Array.isArray(each) || each.some((label) => typeof label !== "string")) return "labels must be a list of texts";
      fields[field] = each;
    } else if (field === "budget") {
      if (!Number.isInteger(each) || (each as number) < 1) return "budget must be a whole number of tokens";
      fields[field] = each;
    } else {
      if (typeof each !== "string" && typeof each !== "number") return `${field} must be a text`;
      fields[field] = String(each);
    }
  }
  if (!String(given[question]).trim()) return "has an empty question";
  return { input: given[question] as string, ...fields };
}

function readRow(columns: string[], cells: string[], mapping: Mapping): NewJob | string {
  if (cells.length !== columns.length) return `has ${cells.length} cells, and the first line has ${columns.length}`;
  const job: Record<string, unknown> = {};
  for (const [at, column] of columns.entries()) {
    const field = mapping[column];
    const cell = cells[at]!.trim();
    if (!field || !cell) continue;
    if (field === "labels") job[field] = cell.split(/[;,]\s*/).filter(Boolean);
    else if (field === "budget") {
      if (!/^[1-9]\d*$/.test(cell)) return `budget must be a whole number of tokens (got ${cell.slice(0, 20)})`;
      job[field] = Number(cell);
    } else job[field] = cell;
  }
  return job["input"] ? (job as unknown as NewJob) : "has no question";
}

/** Rows of a CSV or of tab-separated text (RFC 4180), each with the line that it begins on. Empty lines are left out. */
export function readCsv(text: string): { line: number; cells: string[] }[] {
  const first = text.split("\n", 1)[0]!;
  const comma = !first.includes(",") && first.includes("\t") ? "\t" : !first.includes(",") && first.includes(";") ? ";" : ",";
  const rows: { line: number; cells: string[] }[] = [];
  let cells: string[] = [];
  let cell = "";
  let quoted = false;
  let line = 1;
  let begun = 1;
  const end = () => {
    cells.push(cell);
    if (cells.length > 1 || cells[0]!.trim()) rows.push({ line: begun, cells });
    cells = [];
    cell = "";
    begun = line + 1;
  };
  for (let at = 0; at < text.length; at++) {
    const character = text[at]!;
    if (quoted) {
      if (character === '"' && text[at + 1] === '"') cell += text[++at];
      else if (character === '"') quoted = false;
      else cell += character;
      if (character === "\n") line++;
    } else if (character === '"' && !cell.trim()) {
      quoted = true;
      cell = "";
    } else if (character === comma) {
      cells.push(cell);
      cell = "";
    } else if (character === "\n") {
      if (cell.endsWith("\r")) cell = cell.slice(0, -1);
      end();
      line++;
    } else cell += character;
  }
  if (cell || cells.length) end();
  return rows;
}
