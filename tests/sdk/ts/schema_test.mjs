// schema_test.mjs - can the check fail? Answers that fitted are damaged, one fault at a time, and each fault has to
// be found; so has a server that forgets a field or a header.
import http from 'node:http';
import { assert, fails, Feed, test } from './kit.mjs';
import { Recorder } from './record.mjs';
import { Anthropic } from './sdk.mjs';

const clone = (v) => structuredClone(v);

export function schemaCases(world) {
  const schemas = () => world().recorder.schemas;
  const sample = (verb, path) => {
    const { type } = schemas().route(verb, path);
    const value = world().recorder.samples.get(type);
    assert.ok(value, `no sample of ${verb} ${path}`);
    return [type, clone(value)];
  };

  test('schema/a-missing-field-is-found', async () => {
    let faults = 0;
    for (const [type, value] of world().recorder.samples) {
      assert.deepEqual(schemas().check(type, value), []);
      for (const key of required(schemas(), type, value)) {
        const broken = clone(value);
        delete broken[key];
        assert.ok(schemas().check(type, broken).some((p) => p.includes(key) || p.includes('type')), `${type} without ${key}`);
        faults++;
      }
    }
    assert.ok(faults > 50, `${faults} faults`);
  });

  test('schema/a-field-deep-inside-is-found', async () => {
    const [type, session] = sample('POST', '/v1/sessions');
    for (const damage of [
      (s) => { delete s.agent.model.id; }, (s) => { s.agent.tools[0].default_config.enabled = 'yes'; }, (s) => { delete s.agent.multiagent; },
      (s) => { s.status = 'sleeping'; }, (s) => { s.metadata = { k: 1 }; }, (s) => { s.title = undefined; }, (s) => { s.stats = null; },
      (s) => { s.usage.input_tokens = '12'; }, (s) => { s.agent.extra = 1; }, (s) => { s.resources = [{ type: 'tape' }]; },
    ]) {
      const broken = clone(session);
      damage(broken);
      assert.notDeepEqual(schemas().check(type, JSON.parse(JSON.stringify(broken))), [], String(damage));
    }
  });

  test('schema/unknown-fields-are-found-but-for-our-own', async () => {
    const [type, agent] = sample('POST', '/v1/agents');
    assert.match(schemas().check(type, { ...agent, colour: 'red' })[0], /colour/);
    assert.deepEqual(schemas().check(type, { ...agent, moonrig_colour: 'red' }), []);
    const page = sample('GET', '/v1/agents');
    assert.match(schemas().check(page[0], { ...page[1], prev_page: null })[0], /prev_page/);
  });

  test('schema/events-are-told-apart', async () => {
    const { type } = schemas().route('GET', '/v1/sessions/x/events/stream');
    const at = '2026-11-23T10:00:00.000001Z';
    const good = { type: 'session.status_idle', id: 'sevt_x', processed_at: at, stop_details: null, stop_reason: { type: 'end_turn' } };
    assert.deepEqual(schemas().check(type, good), []);
    assert.match(schemas().check(type, { ...good, stop_reason: { type: 'requires_action' } })[0], /event_ids/);
    assert.match(schemas().check(type, { ...good, stop_details: undefined })[0] ?? '', /stop_details/);
    assert.notDeepEqual(schemas().check(type, { ...good, type: 'session.status_tired' }), []);
    assert.notDeepEqual(schemas().check(type, { ...good, agent_name: 'x' }), []);
  });

  // The whole chain: a server with faults, the SDK's client, the recorder.
  test('schema/a-faulty-server-is-found-out', async () => {
    const [, agent] = sample('POST', '/v1/agents');
    const headers = {
      'content-type': 'application/json', 'request-id': 'req_01' + '2'.repeat(22),
      'anthropic-organization-id': '00000000-0000-4000-8000-000000000000', 'anthropic-workspace-id': 'wrkspc_x',
    };
    const frame = (name, o) => `event: ${name}\ndata: ${JSON.stringify(o)}\n\n`;
    const running = { type: 'session.status_running', id: 'sevt_01' + '3'.repeat(22), processed_at: '2026-11-23T10:00:00Z' };
    let reply;
    const server = http.createServer((req, res) => {
      res.writeHead(reply.status ?? 200, { ...headers, ...reply.headers });
      res.end(reply.body);
    });
    await new Promise((r) => server.listen(0, '127.0.0.1', r));
    const recorder = new Recorder(schemas());
    const client = new Anthropic({ apiKey: 'k', baseURL: `http://127.0.0.1:${server.address().port}`, fetch: recorder.fetch, maxRetries: 0, logLevel: 'off' });
    const ask = async (r) => {
      reply = { ...r, body: typeof r.body === 'string' ? r.body : JSON.stringify(r.body) };
      await client.beta.agents.retrieve('agent_x').catch(() => {});
      return (await recorder.take()).join('\n');
    };
    const follow = async (body) => {
      reply = { headers: { 'content-type': 'text/event-stream' }, body };
      await new Feed(await client.beta.sessions.events.stream('sesn_x')).done;
      await Promise.all(recorder.pending);
      return (await recorder.take()).join('\n');
    };
    try {
      assert.equal(await ask({ body: agent }), '');
      assert.match(await ask({ body: { ...agent, version: undefined } }), /version/);
      assert.match(await ask({ body: { ...agent, created_at: 'yesterday' } }), /created_at/);
      assert.match(await ask({ body: { ...agent, id: 'agent_1' } }), /no id/);
      assert.match(await ask({ body: agent, headers: { 'content-type': 'text/plain' } }), /content-type/);
      assert.match(await ask({ body: agent, headers: { 'request-id': '' } }), /request-id/);
      assert.match(await ask({ body: '{"id":', status: 200 }), /no JSON/);
      assert.match(await ask({ status: 404, body: { error: 'not found' } }), /error body/);
      assert.match(await ask({ status: 404, body: { type: 'error', error: { type: 'not_found_error', message: 'm' }, request_id: 'req_other' } }), /request_id/);
      assert.equal(await follow(frame(running.type, running)), '');
      assert.match(await follow(frame('session.status_idle', running)), /event: session.status_idle for/);
      assert.match(await follow(frame(running.type, { ...running, processed_at: null })), /processed_at/);
      assert.match(await follow(frame(running.type, running) + frame(running.type, running)), /twice/);
      assert.match(await follow('event: session.status_running\ndata: {"type"\n\n'), /without JSON/);
    } finally {
      server.close();
      server.closeAllConnections();
    }
    await fails(client.beta.agents.retrieve('agent_x'), 'a call to a closed server');
  });
}

// The fields of this value that its schema requires.
function required(schemas, type, value) {
  if (!value || typeof value !== 'object' || Array.isArray(value)) return [];
  const must = mustHave(schemas.all.definitions, schemas.all.definitions[type], value.type);
  return Object.keys(value).filter((key) => must.has(key));
}

function mustHave(defs, s, tag) {
  if (!s) return new Set();
  if (s.$ref) return mustHave(defs, defs[s.$ref.replace('#/definitions/', '')], tag);
  const branches = s.oneOf ?? s.anyOf;
  if (!branches) return new Set(s.required ?? []);
  for (const b of branches) {
    const r = b.$ref ? defs[b.$ref.replace('#/definitions/', '')] : b;
    if (r?.properties?.type?.const === tag) return new Set(r.required);
    if (r?.oneOf || r?.anyOf) {
      const inner = mustHave(defs, r, tag);
      if (inner.size) return inner;
    }
  }
  return new Set();
}
