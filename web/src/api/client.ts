// Requests to this server's API, with the key, and with its errors as errors.
import { access, currentKey } from "./key";

const BASE = new URL("v1/", document.baseURI.replace(/[#?].*$/, ""));

/** What the server refused, in its words. status 0: it could not be reached. */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
    /** Where in the request it is, such as jobs[3].strategy. */
    readonly param = "",
  ) {
    super(message);
  }
}

interface Options {
  body?: unknown;
  signal?: AbortSignal;
  headers?: Record<string, string>;
  /** Send it although the page is being closed. */
  keepalive?: boolean;
}

/** A response that is not an error. */
export async function request(method: string, path: string, options: Options = {}): Promise<Response> {
  const headers: Record<string, string> = { ...options.headers };
  if (currentKey()) headers["Authorization"] = `Bearer ${currentKey()}`;
  const init: RequestInit = { method, headers, credentials: "omit", cache: "no-store" };
  if (options.body !== undefined) {
    headers["Content-Type"] = "application/json";
    init.body = JSON.stringify(options.body);
  }
  if (options.signal) init.signal = options.signal;
  if (options.keepalive) init.keepalive = true;
  let response: Response;
  try {
    response = await fetch(new URL(path, BASE), init);
  } catch (error) {
    if (options.signal?.aborted) throw error;
    throw new ApiError(0, "unreachable", "The server cannot be reached.");
  }
  if (response.ok) return response;
  const failure = await readError(response);
  if (failure.status === 401) access.value = currentKey() ? "refused" : "needed";
  throw failure;
}

export async function call<T>(method: string, path: string, options: Options = {}): Promise<T> {
  const response = await request(method, path, options);
  return (await response.json()) as T;
}

/** Hands a response to the browser as a file. No link could: it would carry no key. */
export async function download(path: string, name: string) {
  const response = await request("GET", path);
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await response.blob());
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

/** The words of any failure, for people. */
export const wordsOf = (error: unknown) => (error instanceof Error ? error.message : String(error));

export const query = (parameters: Record<string, string | number | undefined>) => {
  const given = Object.entries(parameters).filter(([, value]) => value !== undefined && value !== "");
  const text = new URLSearchParams(given.map(([name, value]) => [name, String(value)])).toString();
  return text && `?${text}`;
};

interface Failure {
  message: string;
  code: string | null;
  type: string;
  param: string | null;
}

async function readError(response: Response): Promise<ApiError> {
  try {
    const { error } = (await response.json()) as { error: Failure };
    return new ApiError(response.status, error.code ?? error.type, error.message, error.param ?? "");
  } catch {
    return new ApiError(response.status, "unreadable", `The server answered ${response.status}.`);
  }
}
