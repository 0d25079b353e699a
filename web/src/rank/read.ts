// Prompts as they are pasted: a line each, or JSON lines that may bring answers.
import type { OfferedSet } from "../api/rankings";

export interface ReadPrompts {
  lines: string[];
  sets: OfferedSet[];
  wrong: { line: number; why: string }[];
}

/** Each line is a prompt, or a JSON object with a prompt and perhaps answers. */
export function readPrompts(given: string): ReadPrompts {
  const found: ReadPrompts = { lines: [], sets: [], wrong: [] };
  given.split(/\r?\n/).forEach((each, at) => {
    const line = each.trim();
    const bad = (why: string) => found.wrong.push({ line: at + 1, why });
    if (!line) return;
    if (!line.startsWith("{")) return found.lines.push(line);
    let read: Record<string, unknown>;
    try {
      read = JSON.parse(line) as Record<string, unknown>;
    } catch (error) {
      return bad(`is not JSON: ${(error as Error).message}`);
    }
    const { prompt, answers } = read;
    if (typeof prompt !== "string" || !prompt.trim()) return bad('has no "prompt"');
    if (answers === undefined) return found.lines.push(prompt);
    if (!Array.isArray(answers) || answers.length < 2 || answers.some((answer) => typeof answer !== "string"))
      return bad('has no list of two or more texts as "answers"');
    return found.sets.push({ prompt, answers: (answers as string[]).map((text) => ({ text })) });
  });
  return found;
}
