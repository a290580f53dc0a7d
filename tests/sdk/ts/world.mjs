// world.mjs - the processes of a run: the model server of tests/mock, moonrig, and clients of it.
import { spawn, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { Anthropic } from './sdk.mjs';
import { within } from './kit.mjs';

export const top = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../../..');
export const bin = process.env.MOONRIG_BIN ?? path.join(top, 'build/moonrig');
export const KEY = 'sk-mr-test-0123456789abcdefghijklmnop';
const UPSTREAM_KEY = 'sk-upstream-of-the-test';

// A child that prints a line when it is ready; [child, what the line's pattern caught].
async function start(command, args, pattern, options) {
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'], ...options });
  child.log = '';
  let out = '';
  const caught = new Promise((resolve, reject) => {
    child.stdout.setEncoding('utf8').on('data', (s) => {
      out += s;
      const m = pattern.exec(out);
      if (m) resolve(m[1]);
    });
    child.stderr.setEncoding('utf8').on('data', (s) => { child.log = (child.log + s).slice(-20_000); });
    child.on('error', reject);
    child.on('exit', (code, signal) => reject(new Error(`${path.basename(command)} ended (${code ?? signal}): ${out}${child.log}`)));
  });
  child.over = new Promise((resolve) => child.on('exit', (code, signal) => resolve(code ?? signal)));
  return [child, await within(20_000, caught, `${path.basename(command)} to be ready`)];
}

// Can a tool call run here? The program says so itself.
function sandboxed() {
  const out = spawnSync(bin, ['doctor', '--json'], { encoding: 'utf8' }).stdout;
  return JSON.parse(out).sandbox === 'ok';
}

export class World {
  sandbox = sandboxed();
  dir = fs.mkdtempSync(path.join(os.tmpdir(), 'moonrig-sdk-'));

  // tls: { ca, cert, key } for both sides; config: text of a Lua file; scripts: Lua files.
  static async open({ recorder, tls, config, scripts = [], env = {} }) {
    const w = new World();
    w.recorder = recorder;
    w.tls = tls;
    const mock = [path.join(top, 'tests/mock/messages.py'), '--key', UPSTREAM_KEY];
    if (tls) mock.push('--tls-cert', tls.cert, '--tls-key', tls.key);
    [w.mock, w.mockPort] = await start('python3', mock, /^listening (\d+)$/m);
    w.mockUrl = `${tls ? 'https' : 'http'}://127.0.0.1:${w.mockPort}`;
    const args = ['serve', '--listen', '127.0.0.1:0', '--data', path.join(w.dir, 'data')];
    if (tls) args.push('--tls-cert', tls.cert, '--tls-key', tls.key);
    if (config) {
      fs.writeFileSync(path.join(w.dir, 'moonrig.lua'), config);
      args.push('--config', path.join(w.dir, 'moonrig.lua'));
    }
    const clean = Object.fromEntries(Object.entries(process.env).filter(([k]) => !/^(ANTHROPIC|OPENAI)_|^MOONRIG_(ANTHROPIC|OPENAI|URL|LISTEN|DATA)/.test(k)));
    [w.server, w.url] = await start(bin, [...args, ...scripts], /^listening on (https?:\/\/\S+)$/m, {
      cwd: w.dir,
      env: {
        ...clean, MOONRIG_API_KEY: KEY, MOONRIG_ANTHROPIC_API_KEY: UPSTREAM_KEY,
        MOONRIG_ANTHROPIC_BASE_URL: w.mockUrl, MOONRIG_OPENAI_API_KEY: UPSTREAM_KEY, MOONRIG_OPENAI_BASE_URL: w.mockUrl, ...env,
      },
    });
    w.client = w.connect();
    return w;
  }

  connect(options = {}) {
    return new Anthropic({ apiKey: KEY, baseURL: this.url, fetch: this.recorder.fetch, logLevel: 'off', ...options });
  }

  // A request by hand, with the headers of the SDK unless they are set to null.
  raw(verb, p, { headers = {}, body, json } = {}) {
    const h = {
      authorization: `Bearer ${KEY}`, 'anthropic-version': '2026-10-21',
      'anthropic-beta': 'managed-agents-2026-04-01', ...(json === undefined ? {} : { 'content-type': 'application/json' }), ...headers,
    };
    for (const k of Object.keys(h)) if (h[k] === null) delete h[k];
    return this.recorder.fetch(this.url + p, { method: verb, headers: h, body: json === undefined ? body : JSON.stringify(json) });
  }

  // What the model server was asked, newest last.
  async asked(since = 0) {
    return (await fetch(`${this.mockUrl}/requests?since=${since}`)).json();
  }

  async close() {
    const status = { server: null, log: '' };
    if (this.server) {
      this.server.kill('SIGTERM');
      status.server = await within(20_000, this.server.over, 'moonrig to stop').catch(() => 'does not stop');
      status.log = this.server.log;
      if (status.server === 'does not stop') this.server.kill('SIGKILL');
    }
    this.mock?.kill('SIGTERM');
    await this.mock?.over;
    fs.rmSync(this.dir, { recursive: true, force: true });
    return status;
  }
}
