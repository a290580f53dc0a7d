// worker_test.mjs - self-hosted environments (API: resources §8): the SDK's own EnvironmentWorker, unmodified, serves
// sessions of this server with its own tools, in a directory of this machine. The server gives it leases of ten
// seconds (world.py), so it looks after them every five. What its requests get is checked like everything else.
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { assert, codeOf, collect, fails, Feed, message, said, test, within } from './kit.mjs';

const model = 'claude-opus-4-7';
const tool = (name, input) => `[[tool ${name} ${JSON.stringify(input)}]]`;
const until = async (fn, what, ms = 40_000) => {
  const end = Date.now() + ms;
  for (;;) {
    const got = await fn();
    if (got) return got;
    if (Date.now() > end) throw new Error(`waited ${ms} ms in vain for ${what}`);
    await new Promise((r) => setTimeout(r, 50));
  }
};

// An environment, its key, a directory, and workers there.
class Shop {
  static async open(world, tools = [{ type: 'agent_toolset_20260401' }]) {
    const s = new Shop();
    s.world = world;
    s.beta = world.client.beta;
    s.dir = fs.realpathSync(fs.mkdtempSync(path.join(os.tmpdir(), 'moonrig-worker-')));
    s.environment = await s.beta.environments.create({ name: 'own', config: { type: 'self_hosted' } });
    s.agent = await s.beta.agents.create({ name: 'hand', model, tools });
    const made = await fetch(`${world.url}/moonrig/v1/keys`, {
      method: 'POST', headers: { authorization: `Bearer ${world.key}`, 'content-type': 'application/json' },
      body: JSON.stringify({ name: 'workers', environment_id: s.environment.id }),
    });
    s.key = (await made.json()).key;
    return s;
  }

  async session() {
    const session = await this.beta.sessions.create({ agent: this.agent.id, environment_id: this.environment.id });
    return { session, feed: new Feed(await this.beta.sessions.events.stream(session.id)) };
  }

  send(session, ...events) {
    return this.beta.sessions.events.send(session.id, { events });
  }

  // A worker that runs until stop(): with the environment key alone, which no request of the client's own key helps.
  worker(options = {}) {
    const stop = new AbortController();
    const client = this.world.connect({ apiKey: 'sk-mr-of-nobody' });
    const worker = client.beta.environments.work.worker({
      environmentId: this.environment.id, environmentKey: this.key, workdir: this.dir, maxIdleMs: 300, signal: stop.signal, ...options,
    });
    const over = worker.run().then(() => null, (e) => e);
    return { over, stop: async () => { stop.abort(); return within(30_000, over, 'the worker to end'); } };
  }

  stats() {
    return this.beta.environments.work.stats(this.environment.id);
  }

  // Items, as the holder of the environment key sees them.
  get items() {
    return this.world.connect({ apiKey: null, authToken: this.key }).beta.environments.work;
  }

  async item(session) {
    return (await collect(this.items.list(this.environment.id))).find((i) => i.data.id === session.id);
  }

  // The item, its session's or a certain one, once it is in this state.
  state(which, state) {
    const look = () => (which.type === 'work' ? this.beta.environments.work.retrieve(which.id, { environment_id: this.environment.id }) : this.item(which));
    return until(async () => { const i = await look(); return i.state === state && i; }, `the item to be ${state}`);
  }

  close() {
    fs.rmSync(this.dir, { recursive: true, force: true });
  }
}

const results = (events) => events.filter((e) => e.type === 'user.tool_result');
const long = (file) => tool('bash', { command: `touch ${file}; while [ ! -e never ]; do sleep 0.1; done`, timeout_ms: 100_000 });

export function workerCases(world, prefix = 'worker') {
  test(`${prefix}/completes-a-session`, async () => {
    const shop = await Shop.open(world());
    const worker = shop.worker();
    const { session, feed } = await shop.session();
    await shop.send(session, message([
      tool('bash', { command: 'pwd; echo $((6 * 7)) > n.txt; export KEPT=yes' }), tool('write', { file_path: 'sub/a.txt', content: 'one\ntwo\n' }),
      tool('edit', { file_path: 'sub/a.txt', old_string: 'one', new_string: 'uno' }), tool('grep', { pattern: 'uno', path: 'sub' }),
      tool('read', { file_path: 'n.txt' }), tool('bash', { command: 'echo "$(cat n.txt) $KEPT ${ANTHROPIC_API_KEY:-none}"' }), '[[say It said: {result}]]',
    ].join(' ;; ')));
    const events = await feed.idle(0);
    assert.deepEqual(said(events), ['It said: 42 yes none']);
    const got = results(events);
    assert.equal(got.length, 6);
    assert.ok(got.every((e) => !e.is_error), JSON.stringify(got));
    assert.equal(got[0].content[0].text, shop.dir, 'it ran where the worker is');
    assert.match(got[3].content[0].text, /a\.txt:1:uno/);
    assert.equal(fs.readFileSync(path.join(shop.dir, 'sub/a.txt'), 'utf8'), 'uno\ntwo\n');
    const ids = events.filter((e) => e.type === 'agent.tool_use').map((e) => e.id);
    assert.deepEqual(got.map((e) => e.tool_use_id), ids, 'each call has one result');
    const stopped = await shop.state(session, 'stopped');
    assert.ok(stopped.acknowledged_at && stopped.started_at && stopped.latest_heartbeat_at, JSON.stringify(stopped));
    assert.equal((await shop.stats()).workers_polling, 1);
    const on = { environment_id: shop.environment.id };
    assert.deepEqual((await shop.beta.environments.work.update(stopped.id, { ...on, metadata: { team: 'build' } })).metadata, { team: 'build' });
    const bad = await fails(shop.beta.environments.work.update(stopped.id, { ...on, metadata: { anthropic: 'x' } }));
    assert.deepEqual([bad.status, codeOf(bad)], [400, 'invalid_metadata']);
    // A long time later the next message brings the session back to it.
    await shop.send(session, message(`${tool('bash', { command: 'echo "${KEPT:-a new shell}"' })} ;; [[say Again: {result}]]`));
    assert.deepEqual(said(await feed.idle(events.length)), ['Again: a new shell']);
    assert.equal((await collect(shop.items.list(shop.environment.id))).length, 2);
    assert.equal(await worker.stop(), null);
    await feed.close();
    shop.close();
  });

  test(`${prefix}/failing-and-empty-commands`, async () => {
    const shop = await Shop.open(world());
    const worker = shop.worker();
    const { session, feed } = await shop.session();
    await shop.send(session, message([
      tool('bash', { command: 'echo oops; exit_code() { return 3; }; exit_code' }), tool('bash', { command: 'true' }), tool('read', { file_path: '/etc/passwd' }), '[[say {result}]]',
    ].join(' ;; ')));
    const got = results(await feed.idle(0));
    assert.deepEqual(got.map((e) => e.is_error ?? false), [true, false, true]);
    assert.deepEqual([got[0].content[0].text, got[1].content[0].text], ['oops', '(no output)']);
    await worker.stop();
    await feed.close();
    shop.close();
  });

  test(`${prefix}/confirmations`, async () => {
    const ask = { type: 'agent_toolset_20260401', default_config: { permission_policy: { type: 'always_ask' } } };
    const shop = await Shop.open(world(), [ask]);
    const worker = shop.worker();
    const { session, feed } = await shop.session();
    await shop.send(session, message(`[[tools bash {"command":"echo allowed > yes"} | bash {"command":"echo denied > no"}]] ;; [[say {result}]]`));
    const first = await feed.idle(0, 'requires_action');
    const [yes, no] = first.filter((e) => e.type === 'agent.tool_use').map((e) => e.id);
    await shop.send(session, { type: 'user.tool_confirmation', tool_use_id: yes, result: 'allow' },
      { type: 'user.tool_confirmation', tool_use_id: no, result: 'deny', deny_message: 'Not this one.' });
    const events = await feed.idle(first.length);
    assert.deepEqual(results(feed.events).map((e) => e.tool_use_id), [yes]);
    assert.deepEqual(feed.events.filter((e) => e.type === 'agent.tool_result').map((e) => [e.tool_use_id, e.is_error]), [[no, true]]);
    assert.match(said(events)[0], /Not this one/);
    assert.deepEqual([fs.existsSync(path.join(shop.dir, 'yes')), fs.existsSync(path.join(shop.dir, 'no'))], [true, false]);
    await worker.stop();
    await feed.close();
    shop.close();
  });

  test(`${prefix}/lease-lost`, async () => {
    const shop = await Shop.open(world());
    const worker = shop.worker();
    const { session, feed } = await shop.session();
    await shop.send(session, message(`${long('begun')} ;; [[say {result}]]`));
    await until(() => fs.existsSync(path.join(shop.dir, 'begun')), 'the command to run');
    const held = await shop.state(session, 'active');
    // Somebody else keeps the lease from now on: the worker's next heartbeat expects another one than the latest.
    const n = world().recorder.requests.length;
    await shop.items.heartbeat(held.id, { environment_id: shop.environment.id });
    const refused = await until(() => world().recorder.since(n).find((r) => r.url.pathname.endsWith('/heartbeat') && r.status === 412), 'a heartbeat to be refused');
    fs.writeFileSync(path.join(shop.dir, 'never'), '');
    assert.equal(await worker.stop(), null);
    const after = world().recorder.since(world().recorder.requests.indexOf(refused) + 1).filter((r) => r.verb === 'POST' && r.url.pathname !== '/moonrig/v1/keys');
    assert.deepEqual(after.map((r) => r.url.pathname), [], 'nothing is posted after');
    assert.deepEqual(results(feed.events), []);
    assert.equal((await shop.item(session)).state, 'active', 'and it was not stopped');
    await feed.close();
    shop.close();
  });

  test(`${prefix}/stop-while-running`, async () => {
    const shop = await Shop.open(world());
    const worker = shop.worker();
    const { session, feed } = await shop.session();
    await shop.send(session, message(`${long('begun')} ;; [[say {result}]]`));
    await until(() => fs.existsSync(path.join(shop.dir, 'begun')), 'the command to run');
    const held = await shop.state(session, 'active');
    const asked = await shop.beta.environments.work.stop(held.id, { environment_id: shop.environment.id });
    assert.equal(asked.state, 'stopping');
    await shop.state(held, 'stopped');
    assert.deepEqual(results(feed.events).filter((e) => !e.is_error), [], 'the command had no result');
    assert.equal(await worker.stop(), null);
    await feed.close();
    shop.close();
  });

  test(`${prefix}/drain`, async () => {
    const shop = await Shop.open(world());
    const made = [];
    for (let i = 0; i < 3; i++) made.push((await shop.beta.sessions.create({ agent: shop.agent.id, environment_id: shop.environment.id })).id);
    const got = [];
    const poller = world().connect({ apiKey: null, authToken: shop.key }).beta.environments.work.poller({
      environmentId: shop.environment.id, environmentKey: shop.key, drain: true, blockMs: null,
    });
    for await (const work of poller) got.push(work.data.id);
    assert.deepEqual(got, made);
    assert.deepEqual((await collect(shop.items.list(shop.environment.id))).map((i) => i.state), ['stopping', 'stopping', 'stopping']);
    shop.close();
  });

  test(`${prefix}/drained-while-it-serves`, async () => {
    const shop = await Shop.open(world());
    const worker = shop.worker();
    const { session, feed } = await shop.session();
    await shop.send(session, message(`${long('begun')} ;; [[say {result}]]`));
    await until(() => fs.existsSync(path.join(shop.dir, 'begun')), 'the command to run');
    const held = await shop.state(session, 'active');
    assert.equal(await worker.stop(), null);
    await shop.state(held, 'stopped');
    // The session still waits for its tool; an interrupt ends that, and queues it for the next worker.
    await shop.send(session, { type: 'user.interrupt' });
    await feed.idle(0);
    const next = shop.worker();
    await shop.send(session, message(`${tool('bash', { command: 'echo by another' })} ;; [[say {result}]]`));
    await feed.until((all) => said(all).includes('by another'), 'the next worker to serve it');
    await next.stop();
    await feed.close();
    shop.close();
  });

  test(`${prefix}/reclaims-what-another-did-not-acknowledge`, async () => {
    const shop = await Shop.open(world());
    const { session, feed } = await shop.session();
    const claimed = await shop.items.poll(shop.environment.id);
    assert.equal(claimed.data.id, session.id);
    assert.deepEqual(await shop.stats().then((s) => [s.depth, s.pending]), [0, 1]);
    const worker = shop.worker();
    await shop.send(session, message(`${tool('bash', { command: 'echo reclaimed' })} ;; [[say {result}]]`));
    assert.deepEqual(said(await feed.until((all) => said(all).length > 0, 'the second worker to serve it', 40_000)), ['reclaimed']);
    assert.equal((await collect(shop.items.list(shop.environment.id))).length, 1, 'the same item');
    await worker.stop();
    await feed.close();
    shop.close();
  });

  test(`${prefix}/an-archived-session`, async () => {
    const shop = await Shop.open(world());
    const { session, feed } = await shop.session();
    const held = await shop.items.poll(shop.environment.id);
    await shop.items.ack(held.id, { environment_id: shop.environment.id });
    await shop.beta.sessions.archive(session.id);
    const worker = world().connect({ apiKey: 'sk-mr-of-nobody' }).beta.environments.work.worker({ workdir: shop.dir });
    const n = world().recorder.requests.length;
    await worker.handleItem({ workId: held.id, environmentId: shop.environment.id, sessionId: session.id, workSecret: held.secret });
    assert.equal((await shop.item(session)).state, 'stopped');
    assert.ok(world().recorder.since(n).every((r) => !r.url.pathname.endsWith('/events')), 'it ran nothing');
    await feed.close();
    shop.close();
  });

  test(`${prefix}/a-revoked-key-ends-the-worker`, async () => {
    const shop = await Shop.open(world());
    const worker = shop.worker();
    await until(async () => (await shop.stats()).workers_polling === 1, 'the worker to poll');
    const headers = { authorization: `Bearer ${world().key}` };
    const { data } = await (await fetch(`${world().url}/moonrig/v1/keys`, { headers })).json();
    await fetch(`${world().url}/moonrig/v1/keys/${data.find((k) => k.environment_id === shop.environment.id).id}`, { method: 'DELETE', headers });
    const e = await within(30_000, worker.over, 'the worker to give up');
    assert.equal(e.status, 401);
    shop.close();
  });
}
