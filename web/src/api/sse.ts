// Server-sent events over fetch: the browser's EventSource sends no headers, and so no key.

export interface ServerEvent {
  name: string;
  data: string;
  /** The id of this event, "" where it has none. */
  id: string;
}

/** The events of a stream of bytes, as the HTML standard reads them, without `retry`. A last, unfinished one is dropped.
 * alive: called whenever bytes come, comments included. */
export async function* readEvents(
  stream: ReadableStream<Uint8Array>,
  alive: () => void = () => {},
): AsyncGenerator<ServerEvent> {
  const reader = stream.pipeThrough(new TextDecoderStream() as TransformStream<Uint8Array, string>).getReader();
  const parser = new EventParser();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      alive();
      yield* parser.push(value);
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

export class EventParser {
  private rest = "";
  private name = "";
  private id = "";
  private data: string[] = [];

  *push(text: string): Generator<ServerEvent> {
    this.rest += text;
    // A \r at the very end may be the first half of \r\n.
    const lines = this.rest.split(/\r\n|\n|\r(?!$)/);
    this.rest = lines.pop()!;
    for (const line of lines) {
      if (line === "") {
        if (this.data.length) yield { name: this.name || "message", data: this.data.join("\n"), id: this.id };
        this.name = this.id = "";
        this.data = [];
      } else {
        this.field(line);
      }
    }
  }

  private field(line: string) {
    const colon = line.indexOf(":");
    if (colon === 0) return; // a comment
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (field === "data") this.data.push(value);
    else if (field === "event") this.name = value;
    else if (field === "id") this.id = value;
  }
}
