/**
 * A client of Seawall, to copy: `fetch`, and nothing else.
 *
 * Queries, their parameters and their answers are typed by the service's own document:
 *
 *     npx openapi-typescript http://127.0.0.1:8080/openapi.json -o queries.d.ts
 *
 *     import type { paths } from "./queries.js";
 *     const seawall = new Seawall<paths>("http://127.0.0.1:8080", { token: process.env.SEAWALL_TOKEN });
 *     const product = await seawall.ask("product", { id: 42 });
 *
 * One `Seawall` for the whole process. An int8 above 2^53 loses digits in JavaScript: let the query cast it to text.
 */

/** The queries of a document. */
export type Query<Paths> = {
  [Path in keyof Paths]: Path extends `/v1/queries/${infer Name}` ? Name : never;
}[keyof Paths];

type Get<Paths, Name extends string> = `/v1/queries/${Name}` extends keyof Paths
  ? Paths[`/v1/queries/${Name}`] extends { get: infer Operation }
    ? Operation
    : never
  : never;

/** What a query takes. */
export type Params<Paths, Name extends string> =
  Get<Paths, Name> extends { parameters: { query?: infer Taken } } ? NonNullable<Taken> : never;

/** What it answers. */
export type Answer<Paths, Name extends string> =
  Get<Paths, Name> extends { responses: { 200: { content: { "application/json": infer Body } } } } ? Body : never;

/** An answer that is none: `code` is stable and to act on, `detail` is for people. */
export class Problem extends Error {
  readonly status: number;
  readonly code: string;
  readonly detail: string;
  /** What is wrong with each parameter. */
  readonly errors: { param?: string; detail: string; hint: string }[];

  constructor(status: number, document: Partial<Problem>) {
    super(`${status} ${document.code ?? ""}: ${document.detail ?? ""}`);
    this.name = "Problem";
    this.status = status;
    this.code = document.code ?? "";
    this.detail = document.detail ?? "";
    this.errors = document.errors ?? [];
  }
}

export interface Options {
  /** An API token or a JWT. */
  token?: string | undefined;
  /** Milliseconds for a whole question. */
  timeout?: number;
  /** Answers that are kept, to be told of in a 304. */
  keep?: number;
}

export class Seawall<Paths> {
  readonly #url: string;
  readonly #headers: Record<string, string>;
  readonly #timeout: number;
  readonly #keep: number;
  readonly #kept = new Map<string, { etag: string; body: string }>();

  constructor(url: string, { token, timeout = 10_000, keep = 1_000 }: Options = {}) {
    this.#url = url.replace(/\/$/, "");
    this.#headers = token ? { Authorization: `Bearer ${token}` } : {};
    this.#timeout = timeout;
    this.#keep = keep;
  }

  /**
   * The answer of `query`, with every write of the transaction `after`, which is what `seawall.token()` gave in it.
   * Rejects with a `Problem`, or with what `fetch` throws where there is no answer at all.
   */
  async ask<Name extends Query<Paths> & string>(
    query: Name,
    params: Params<Paths, Name>,
    { after }: { after?: string } = {},
  ): Promise<Answer<Paths, Name>> {
    const url = `${this.#url}/v1/queries/${query}?${search(params)}`;
    const kept = this.#kept.get(url);
    const headers = { ...this.#headers };
    if (kept) headers["If-None-Match"] = kept.etag;
    if (after) headers["Seawall-After"] = after;
    const response = await this.#send(url, headers);
    if (response.status === 304 && kept) return JSON.parse(kept.body);
    const body = await response.text();
    if (!response.ok) throw new Problem(response.status, document(body));
    this.#remember(url, response.headers.get("ETag"), body);
    return JSON.parse(body);
  }

  /** Sends it, and again where the service says when: it is busy, or has lost its database for a moment. */
  async #send(url: string, headers: Record<string, string>): Promise<Response> {
    const deadline = Date.now() + this.#timeout;
    for (;;) {
      const signal = AbortSignal.timeout(Math.max(deadline - Date.now(), 1));
      const response = await fetch(url, { headers, signal });
      const pause = Number(response.headers.get("Retry-After") ?? Number.NaN) * 1_000;
      const busy = response.status === 429 || response.status === 503;
      if (!busy || !(Date.now() + pause < deadline)) return response;
      await response.body?.cancel();
      await new Promise((wake) => setTimeout(wake, pause));
    }
  }

  #remember(url: string, etag: string | null, body: string): void {
    if (!etag) return;
    // A Map keeps the order of insertion: the oldest goes first.
    this.#kept.delete(url);
    this.#kept.set(url, { etag, body });
    const [oldest] = this.#kept.keys();
    if (this.#kept.size > this.#keep && oldest !== undefined) this.#kept.delete(oldest);
  }
}

/** Parameters in a URI: an array repeats its name, and what is undefined or null is absent. */
function search(params: object): URLSearchParams {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(params)) {
    for (const one of Array.isArray(value) ? value : [value]) {
      if (one !== undefined && one !== null) search.append(name, String(one));
    }
  }
  return search;
}

/** A problem document, or nothing of one where it comes from something in between, such as a balancer. */
function document(body: string): Partial<Problem> {
  try {
    return JSON.parse(body);
  } catch {
    return {};
  }
}
