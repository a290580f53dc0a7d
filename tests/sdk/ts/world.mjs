// world.mjs - the world of a run, made by ../world.py (the model server, moonrig before it), and clients of it.
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { Anthropic } from './sdk.mjs';
import { within } from './kit.mjs';

const here = path.dirname(fileURLToPath(import.meta.url));
const launcher = path.resolve(here, '../world.py');
export const bin = process.env.MOONRIG_BIN ?? path.resolve(here, '../../../build/moonrig');

export class World {
  // tls: { ca, cert, key } for both sides; config: text of a Lua file; scripts: Lua files.
  static async open({ recorder, tls, config, scripts = [] }) {
    const w = new World();
    w.recorder = recorder;
    const args = [launcher, ...scripts.flatMap((s) => ['--script', s])];
    if (tls) args.push('--tls', tls.ca, tls.cert, tls.key);
    if (config) {
      w.dir = fs.mkdtempSync(path.join(os.tmpdir(), 'moonrig-sdk-config-'));
      fs.writeFileSync(path.join(w.dir, 'moonrig.lua'), config);
      args.push('--config', path.join(w.dir, 'moonrig.lua'));
    }
    w.child = spawn('python3', args, { stdio: ['pipe', 'pipe', 'inherit'] });
    w.over = new Promise((resolve) => w.child.on('close', resolve));
    w.said = '';
    w.child.stdout.setEncoding('utf8').on('data', (text) => { w.said += text; });
    const facts = await within(130_000, w.#line(0), 'the world to be ready');
    Object.assign(w, { url: facts.SDK_URL, key: facts.SDK_KEY, modelUrl: facts.SDK_MODEL_URL, sandbox: facts.SDK_SANDBOX === '1' });
    w.client = w.connect();
    return w;
  }

  // The launcher's n-th line of JSON.
  #line(n) {
    return new Promise((resolve, reject) => {
      const look = () => {
        const lines = this.said.split('\n');
        if (lines.length > n + 1) resolve(JSON.parse(lines[n]));
      };
      this.child.stdout.on('data', look);
      this.over.then((status) => reject(new Error(`the world ended with ${status}`)));
      look();
    });
  }

  connect(options = {}) {
    return new Anthropic({ apiKey: this.key, baseURL: this.url, fetch: this.recorder.fetch, logLevel: 'off', ...options });
  }

  // A request by hand, with the headers of the SDK unless they are set to null.
  raw(verb, p, { headers = {}, body, json } = {}) {
    const h = {
      authorization: `Bearer ${this.key}`, 'anthropic-version': '2026-10-21',
      'anthropic-beta': 'managed-agents-2026-04-01', ...(json === undefined ? {} : { 'content-type': 'application/json' }), ...headers,
    };
    for (const k of Object.keys(h)) if (h[k] === null) delete h[k];
    return this.recorder.fetch(this.url + p, { method: verb, headers: h, body: json === undefined ? body : JSON.stringify(json) });
  }

  // What the model server was asked, newest last.
  async asked(since = 0) {
    return (await fetch(`${this.modelUrl}/requests?since=${since}`)).json();
  }

  // How the server ended: { server: its status, log: its last words }.
  async close() {
    this.child.stdin.end();
    const end = await within(130_000, this.#line(1), 'the world to end');
    if (this.dir) fs.rmSync(this.dir, { recursive: true, force: true });
    return end;
  }
}
