// record.mjs - a fetch for the SDK's client that looks at every answer: status, headers, and the body against the
// type that the SDK declares for the operation. Streams are read along, frame by frame. What does not fit is kept
// until the runner asks.
import { isDeepStrictEqual } from 'node:util';

// Names that clients of two generations let through; anything newer must travel as "message".
const NAMED = /^(user\.|system\.message$|agent\.|session\.(?!usage$)|span\.|event_start$|event_delta$)/;
const ID = /^(agent|env|sesn|sevt|sthr|sesrsc|file|req|page)_/;
const FULL_ID = /^[a-z]+_01[1-9A-HJ-NP-Za-km-z]{22}$/;
const TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$/;

export class Recorder {
  problems = [];
  seen = new Map();     // "POST /v1/agents" as the SDK writes the route -> answers with status 200
  samples = new Map();  // schema name -> one value that fitted
  requests = [];
  pending = new Set();
  broken = 0;           // so many requests fail before they reach the server

  constructor(schemas) {
    this.schemas = schemas;
    this.fetch = this.fetch.bind(this);
  }

  async fetch(url, init = {}) {
    if (!/^https?:/.test(String(url?.url ?? url))) return fetch(url, init); // the SDK looks what fetch can do
    const request = { verb: (init.method ?? 'GET').toUpperCase(), url: new URL(url), headers: new Headers(init.headers), status: 0 };
    this.requests.push(request);
    if (this.broken > 0) {
      this.broken--;
      throw new TypeError('fetch failed: the test broke the connection');
    }
    const response = await fetch(url, init);
    request.status = response.status;
    request.requestId = response.headers.get('request-id');
    const job = this.#look(request, response.clone()).catch((e) => {
      if (e?.name !== 'AbortError') this.problem(request, `reading the answer: ${e}`);
    });
    this.pending.add(job);
    job.finally(() => this.pending.delete(job));
    if (request.stream) return response;
    await job;
    return response;
  }

  problem(request, what) {
    this.problems.push(`${request.verb} ${request.url.pathname}${request.url.search} -> ${request.status}: ${what}`);
  }

  // Problems since the last time.
  async take() {
    const all = this.problems;
    this.problems = [];
    return all.length > 12 ? [...all.slice(0, 12), `and ${all.length - 12} more`] : all;
  }

  since(n) {
    return this.requests.slice(n);
  }

  async #look(request, copy) {
    const h = copy.headers, kind = h.get('content-type') ?? '';
    if (!FULL_ID.test(h.get('request-id') ?? '')) this.problem(request, `request-id: ${h.get('request-id')}`);
    if (!/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(h.get('anthropic-organization-id') ?? ''))
      this.problem(request, `anthropic-organization-id: ${h.get('anthropic-organization-id')}`);
    if (!/^wrkspc_/.test(h.get('anthropic-workspace-id') ?? '')) this.problem(request, 'no anthropic-workspace-id');
    const route = this.schemas.route(request.verb, request.url.pathname);
    if (copy.status >= 400) return this.#error(request, await this.#json(request, copy), kind);
    if (copy.status !== 200) this.problem(request, 'a success that is not 200');
    if (!route) {
      if (!/\/content$/.test(request.url.pathname)) this.problem(request, 'the SDK has no such operation');
      copy.body?.cancel(); // not awaited: it is over when the other half of the clone has been read
      return;
    }
    const name = `${request.verb} ${[...this.schemas.byRoute].find(([, e]) => e === route)[0].split(' ')[1]}`;
    this.seen.set(name, (this.seen.get(name) ?? 0) + 1);
    if (route.kind === 'stream') {
      request.stream = true;
      if (!kind.startsWith('text/event-stream')) this.problem(request, `content-type: ${kind}`);
      return this.#frames(request, route, copy);
    }
    const value = await this.#json(request, copy, kind);
    if (value !== undefined) this.value(request, route.type, value);
  }

  async #json(request, copy) {
    const kind = copy.headers.get('content-type') ?? '', body = await copy.text();
    if (!/^application\/json(;|$)/.test(kind)) this.problem(request, `content-type: ${kind}`);
    try {
      return JSON.parse(body);
    } catch {
      this.problem(request, `no JSON: ${body.slice(0, 200)}`);
    }
  }

  #error(request, value) {
    if (value === undefined) return;
    for (const p of this.schemas.check(this.schemas.error, value)) this.problem(request, `error body${p}`);
    if (value.request_id !== request.requestId) this.problem(request, 'request_id is not the header\'s');
  }

  value(request, type, value) {
    for (const p of this.schemas.check(type, value)) this.problem(request, p);
    this.#walk(request, value, '');
    if (!this.samples.has(type)) this.samples.set(type, value);
  }

  // Rules that types cannot say: times are RFC 3339 in UTC, ids have their form.
  #walk(request, v, at) {
    if (Array.isArray(v)) v.forEach((x, i) => this.#walk(request, x, `${at}/${i}`));
    else if (v && typeof v === 'object')
      for (const [k, x] of Object.entries(v)) {
        if (['input', 'metadata', 'input_schema', 'content'].includes(k)) continue;
        if (k.endsWith('_at') && x !== null && !TIME.test(x)) this.problem(request, `${at}/${k}: no time: ${x}`);
        if ((k === 'id' || k.endsWith('_id')) && typeof x === 'string' && ID.test(x) && !FULL_ID.test(x))
          this.problem(request, `${at}/${k}: no id: ${x}`);
        this.#walk(request, x, `${at}/${k}`);
      }
  }

  async #frames(request, route, copy) {
    const seen = new Map();
    let rest = '', position = 0;
    const decoder = new TextDecoder('utf-8', { fatal: true });
    for await (const chunk of copy.body) {
      rest += decoder.decode(chunk, { stream: true });
      let end;
      while ((end = rest.indexOf('\n\n')) >= 0) {
        position = this.#frame(request, route, rest.slice(0, end), seen, position);
        rest = rest.slice(end + 2);
      }
    }
    if (rest) this.problem(request, `the stream ended within a frame: ${rest.slice(0, 100)}`);
  }

  #frame(request, route, frame, seen, position) {
    const fields = {};
    for (const line of frame.split('\n')) {
      if (line.startsWith(':')) continue;
      const [, k, v] = /^(\w+): ?(.*)$/.exec(line) ?? [];
      if (!k || k in fields) return this.problem(request, `frame: ${frame.slice(0, 200)}`), position;
      fields[k] = v;
    }
    if (!Object.keys(fields).length || fields.event === 'ping') return position;
    let value;
    try {
      value = JSON.parse(fields.data);
    } catch {
      return this.problem(request, `frame without JSON: ${frame.slice(0, 200)}`), position;
    }
    if (fields.event === 'error') return this.problem(request, `an error event: ${fields.data}`), position;
    if (fields.event !== (NAMED.test(value.type) ? value.type : 'message'))
      this.problem(request, `event: ${fields.event} for ${value.type}`);
    this.value(request, route.type, value);
    if (value.id) {
      if (seen.has(value.id)) {
        if (!isDeepStrictEqual(seen.get(value.id), value)) this.problem(request, `two different events ${value.id}`);
        else this.problem(request, `event ${value.id} twice on one connection`);
      }
      seen.set(value.id, value);
    }
    if (fields.id === undefined) return position;
    if (!/^\d+$/.test(fields.id) || Number(fields.id) <= position) this.problem(request, `id: ${fields.id} after ${position}`);
    return Number(fields.id);
  }
}
