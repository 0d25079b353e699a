import { expect, test } from "vitest";
import { EventParser, type ServerEvent } from "../src/api/sse";

const STREAM = ': hello\r\nid: 7\r\nevent: job\r\ndata: {"a":\r\ndata:  1}\r\n\r\ndata: x\n\ndata\rid: 8\r\r: \n\nevent: none\n\ndata: cut';
const EVENTS: ServerEvent[] = [
  { name: "job", data: '{"a":\n 1}', id: "7" },
  { name: "message", data: "x", id: "" },
  { name: "message", data: "", id: "8" },
];

test("events are the same however the stream is cut", () => {
  for (let size = 1; size <= STREAM.length; size++) {
    const parser = new EventParser();
    const found: ServerEvent[] = [];
    for (let at = 0; at < STREAM.length; at += size) found.push(...parser.push(STREAM.slice(at, at + size)));
    expect(found, `pieces of ${size}`).toEqual(EVENTS);
  }
});
