// kit.mjs - a plain runner: test(name, fn) collects, run() runs in order and prints "ok NAME" or "not ok NAME"
// with indented details. A test fails by throwing, by taking longer than its limit, or when the recorder saw an
// answer that is not what the SDK's types say.
import assert from 'node:assert/strict';

export { assert };

const tests = [];
const LIMIT = 60_000;

export function test(name, fn, { limit = LIMIT } = {}) {
  tests.push({ name, fn, limit });
}

export class Skip extends Error {}
export const skip = (why) => { throw new Skip(why); };

export async function run(only, check) {
  let failed = 0;
  for (const t of tests) {
    if (only.length && !only.some((o) => t.name === o || t.name.startsWith(o + '/') || t.name.startsWith(o))) continue;
    let error = null;
    try {
      await within(t.limit, t.fn(), `${t.name} to end`);
      const problems = await check();
      if (problems.length) throw new Error(`answers that do not fit the SDK's types:\n${problems.join('\n')}`);
    } catch (e) {
      error = e;
      await check();
    }
    if (error instanceof Skip) console.log(`skip ${t.name} # ${error.message}`);
    else if (!error) console.log(`ok ${t.name}`);
    else {
      failed++;
      console.log(`not ok ${t.name}`);
      console.log(String(error.stack ?? error).split('\n').slice(0, 40).map((l) => '  ' + l).join('\n'));
    }
  }
  return failed;
}

export function within(ms, promise, what) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`waited ${ms} ms in vain for ${what}`)), ms);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

// What must fail: the error, which is then looked at.
export async function fails(promise, what = 'the call') {
  let value;
  try {
    value = await promise;
  } catch (e) {
    return e;
  }
  throw new Error(`${what} should have failed; it gave ${JSON.stringify(value)?.slice(0, 400)}`);
}

// What the API says of an error, and its word for machines: fields of their own from 1.0 on, in the body before.
export const why = (e) => e.apiMessage ?? e.error?.error?.message;
export const codeOf = (e) => e.errorCode ?? e.error?.error?.details?.error_code;
export const types = (events) => events.map((e) => e.type);
export const text = (s) => [{ type: 'text', text: s }];
export const message = (s) => ({ type: 'user.message', content: text(s) });
export const said = (events) => events.filter((e) => e.type === 'agent.message').flatMap((e) => e.content).map((b) => b.text);
export const last = (events, type) => events.filter((e) => e.type === type).at(-1);

// Reads a stream in the background from the moment it is made.
export class Feed {
  events = [];
  ended = false;
  error = null;
  #wake = [];

  constructor(stream) {
    this.stream = stream;
    this.done = this.#read();
  }

  async #read() {
    try {
      for await (const e of this.stream) {
        this.events.push(e);
        this.#call();
      }
    } catch (e) {
      this.error = e;
    }
    this.ended = true;
    this.#call();
  }

  #call() {
    const all = this.#wake;
    this.#wake = [];
    for (const f of all) f();
  }

  // The events so far once fn(events) is true.
  async until(fn, what, ms = 20_000) {
    const limit = Date.now() + ms;
    while (!fn(this.events)) {
      if (this.ended) throw new Error(`the stream ended before ${what}: ${this.error ?? ''} ${types(this.events)}`);
      await within(Math.max(1, limit - Date.now()), new Promise((r) => this.#wake.push(r)),
        `${what}; so far: ${types(this.events).join(' ')}`);
    }
    return this.events;
  }

  // The events of one turn: those after `from` up to an idle with this stop reason.
  async idle(from = 0, reason = 'end_turn') {
    await this.until((all) => all.slice(from).some((e) => e.type === 'session.status_idle' && e.stop_reason.type === reason),
      `session.status_idle ${reason}`);
    return this.events.slice(from);
  }

  close() {
    this.stream.controller.abort();
    return this.done;
  }
}

export async function collect(pages) {
  const all = [];
  for await (const item of pages) all.push(item);
  return all;
}
