// errors_test.mjs - what goes wrong, as the SDK's error classes and its retries show it.
import net from 'node:net';
import { assert, codeOf, collect, fails, Feed, message, test, why } from './kit.mjs';
import { errors, version } from './sdk.mjs';

const NOBODY = '01' + '2'.repeat(22);

export function errorCases(world) {
  const beta = () => world().client.beta;
  // The error of a call and the requests that the SDK made for it.
  async function refused(promise, Class, status) {
    const n = world().recorder.requests.length;
    const e = await fails(promise());
    const made = world().recorder.since(n);
    assert.ok(e instanceof Class, `${e.constructor.name} (${e.message}), not ${Class.name}`);
    assert.equal(e.status, status);
    assert.ok(e.requestID?.startsWith('req_'));
    assert.ok(why(e)?.length > 8, e.message);
    return { e, made };
  }

  test('errors/missing-beta-header', async () => {
    for (const [verb, path] of [['POST', '/v1/agents'], ['GET', '/v1/sessions'], ['GET', '/v1/environments'], ['POST', '/v1/sessions']]) {
      const r = await world().raw(verb, path, { headers: { 'anthropic-beta': null }, json: verb === 'POST' ? { name: 'x', model: 'y' } : undefined });
      const body = await r.json();
      assert.equal(r.status, 400);
      assert.equal(body.error.type, 'invalid_request_error');
      assert.match(body.error.message, /anthropic-beta/);
      assert.match(body.error.message, /managed-agents-2026-04-01/);
    }
    const other = await world().raw('GET', '/v1/agents', { headers: { 'anthropic-beta': 'files-api-2025-04-14' } });
    assert.equal(other.status, 400);
    assert.equal((await world().raw('GET', '/v1/agents', { headers: { 'anthropic-beta': 'x-2099-01-01, managed-agents-2026-04-01' } })).status, 200);
  });

  test('errors/wrong-key', async () => {
    const { e, made } = await refused(() => world().connect({ apiKey: 'sk-mr-wrong' }).beta.agents.list().then(collect), errors.AuthenticationError, 401);
    assert.equal(e.type, 'authentication_error');
    assert.equal(made.length, 1);
    for (const headers of [{ authorization: null }, { authorization: 'Bearer ' }, { authorization: 'Basic ' + btoa(`x:${world().key}`) }]) {
      const r = await world().raw('GET', '/v1/agents', { headers });
      assert.equal(r.status, 401, JSON.stringify(headers));
      assert.equal((await r.json()).error.type, 'authentication_error');
    }
    assert.equal((await world().raw('GET', '/v1/agents', { headers: { authorization: null, 'x-api-key': world().key } })).status, 200);
  });

  test('errors/unknown-id', async () => {
    const calls = [
      () => beta().agents.retrieve('agent_' + NOBODY), () => beta().agents.update('agent_' + NOBODY, { name: 'x' }),
      () => beta().agents.archive('agent_' + NOBODY), () => beta().environments.retrieve('env_' + NOBODY),
      () => beta().environments.delete('env_' + NOBODY), () => beta().sessions.retrieve('sesn_' + NOBODY),
      () => beta().sessions.delete('sesn_' + NOBODY), () => beta().sessions.events.list('sesn_' + NOBODY),
      () => beta().sessions.events.send('sesn_' + NOBODY, { events: [message('x')] }), () => beta().sessions.events.stream('sesn_' + NOBODY),
      () => beta().sessions.threads.list('sesn_' + NOBODY), () => world().client.files.retrieveMetadata('file_' + NOBODY),
      () => world().client.files.download('file_' + NOBODY), () => world().client.models.retrieve('no-such-model'),
      () => beta().sessions.create({ agent: 'agent_' + NOBODY, environment_id: 'env_' + NOBODY }),
    ];
    for (const call of calls) {
      const { e, made } = await refused(call, errors.NotFoundError, 404);
      assert.equal(e.type, 'not_found_error', String(call));
      assert.equal(made.length, 1);
    }
  });

  test('errors/bad-field', async () => {
    const agent = await beta().agents.create({ name: 'errors', model: 'claude-opus-4-7' });
    const environment = await beta().environments.create({ name: 'errors' });
    const session = await beta().sessions.create({ agent: agent.id, environment_id: environment.id });
    const cases = [
      [() => beta().agents.create({ model: 'm' }), /name/],
      [() => beta().agents.create({ name: '', model: 'm' }), /name/],
      [() => beta().agents.create({ name: 'x', model: 7 }), /model/],
      [() => beta().agents.create({ name: 'x', model: 'm', tools: [{ type: 'agent_toolset_20260401', configs: [{ name: 'teleport' }] }] }), /tools.*configs.*name/],
      [() => beta().agents.create({ name: 'x', model: 'm', tools: [{ type: 'custom', name: 'bash', description: 'd', input_schema: { type: 'object' } }] }), /tools/],
      [() => beta().agents.create({ name: 'x', model: 'm', metadata: { k: 1 } }), /metadata/],
      [() => beta().environments.create({ name: 'x', config: { type: 'cloud', networking: { type: 'open' } } }), /config\.networking\.type/],
      [() => beta().sessions.create({ agent: agent.id }), /environment_id/],
      [() => beta().sessions.create({ agent: agent.id, environment_id: environment.id, initial_events: [{ type: 'user.interrupt' }] }), /initial_events/],
      [() => beta().sessions.list({ order: 'sideways' }).then(collect), /order/],
      [() => beta().sessions.list({ page: 'page_nonsense' }).then(collect), /page/],
      [() => beta().sessions.events.list(session.id, { limit: 0 }).then(collect), /limit/],
      [() => beta().sessions.events.send(session.id, { events: [] }), /events/],
      [() => beta().sessions.events.send(session.id, { events: [message('fine'), { type: 'user.message' }] }), /events\[1\]/],
      [() => beta().sessions.events.send(session.id, { events: [{ type: 'agent.message', content: [] }] }), /events\[0\]/],
      [() => beta().sessions.events.stream(session.id, { event_deltas: ['agent.song'] }), /event_deltas/],
      [() => beta().sessions.update(session.id, { vault_ids: ['vlt_x'] }), /vault_ids/],
    ];
    for (const [call, names] of cases) {
      const { e, made } = await refused(call, errors.BadRequestError, 400);
      assert.equal(e.type, 'invalid_request_error');
      assert.match(why(e), names);
      assert.equal(made.length, 1);
    }
    assert.deepEqual(await collect(beta().sessions.events.list(session.id)), [], 'a refused batch stores nothing');
  });

  test('errors/version-conflict', async () => {
    const agent = await beta().agents.create({ name: 'conflict', model: 'claude-opus-4-7' });
    await beta().agents.update(agent.id, { version: 1, name: 'conflict two' });
    const { e, made } = await refused(() => beta().agents.update(agent.id, { version: 1, name: 'conflict three' }), errors.ConflictError, 409);
    assert.equal(e.type, 'conflict_error');
    assert.equal(e.headers.get('x-should-retry'), 'false');
    assert.equal(made.length, 1, 'the SDK does not try again');
    await refused(() => beta().agents.update(agent.id, { version: 1, name: 'conflict two' }), errors.ConflictError, 409);
    assert.equal((await beta().agents.retrieve(agent.id)).version, 2);
  });

  test('errors/lost-connection-is-retried', async () => {
    const n = world().recorder.requests.length;
    world().recorder.broken = 1;
    const agent = await beta().agents.create({ name: 'retried', model: 'claude-opus-4-7' });
    const made = world().recorder.since(n);
    assert.deepEqual(made.map((r) => r.status), [0, 200]);
    assert.equal(made[1].headers.get('x-stainless-retry-count'), '1');
    assert.equal(agent.name, 'retried');
  });

  test('errors/not-implemented', async () => {
    const { e, made } = await refused(() => beta().vaults.create({ display_name: 'x' }), errors.NotImplementedError ?? errors.APIError, 501);
    assert.equal(e.type, 'api_error');
    assert.match(why(e), /vaults\.create/);
    assert.equal(made.length, 1);
  });

  test('errors/codes', async () => {
    const environment = await beta().environments.create({ name: 'codes' });
    const change = await refused(() => beta().environments.update(environment.id, { config: { type: 'self_hosted' } }), errors.BadRequestError, 400);
    assert.equal(codeOf(change.e), 'invalid_config_type_change');
    await beta().environments.archive(environment.id);
    const archived = await refused(() => beta().environments.update(environment.id, { description: 'x' }), errors.BadRequestError, 400);
    assert.equal(codeOf(archived.e), 'environment_archived');
    const file = await world().client.files.upload({ file: new File(['x'], 'x.txt') });
    const download = await refused(() => world().client.files.download(file.id), errors.BadRequestError, 400);
    assert.equal(codeOf(download.e), 'file_not_downloadable');
    if (!version.startsWith('0.')) assert.equal(download.e.constructor.name, 'FileNotDownloadableError');
    const agent = await beta().agents.create({ name: 'codes', model: 'claude-opus-4-7' });
    const model = await refused(() => beta().sessions.create({
      agent: { type: 'agent_with_overrides', id: agent.id, model: null }, environment_id: environment.id,
    }), errors.BadRequestError, 400);
    assert.equal(codeOf(model.e), 'agent_model_required');
  });

  test('errors/too-large', async () => {
    const { e, made } = await refused(() => world().connect({ maxRetries: 0 }).beta.agents.create({ name: 'x', model: 'm', system: 'x'.repeat(33 << 20) }),
      errors.ContentTooLargeError ?? errors.APIError, 413);
    assert.equal(e.type, 'request_too_large');
    assert.equal(made.length, 1);
  });

  test('errors/garbage-on-the-port', async () => {
    const { hostname, port } = new URL(world().url);
    const garbage = [
      '\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03', 'GET', '\0'.repeat(70_000), 'GET / HTTP/9.9\r\n\r\n', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n',
      'POST /v1/agents HTTP/1.1\r\nhost: x\r\ncontent-length: -5\r\n\r\n', 'POST /v1/agents HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n',
      'GET /\x01 HTTP/1.1\r\n\r\n', `GET /v1/agents HTTP/1.1\r\n${'a: b\r\n'.repeat(20_000)}\r\n`, 'POST /v1/agents HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\n',
    ];
    for (const bytes of garbage)
      await new Promise((resolve) => {
        const s = net.connect(port, hostname, () => s.end(Buffer.from(bytes, 'latin1')));
        s.on('data', () => {}).on('error', resolve).on('close', resolve);
      });
    assert.equal((await (await fetch(world().url + '/health')).json()).status, 'ok');
    await collect(beta().agents.list());
  });

  test('errors/an-aborted-stream-is-let-go', async () => {
    const open = async () => Number(/^moonrig_streams_open (\d+)$/m.exec(await (await fetch(world().url + '/metrics')).text())[1]);
    const agent = await beta().agents.create({ name: 'abort', model: 'claude-opus-4-7' });
    const environment = await beta().environments.create({ name: 'abort' });
    const session = await beta().sessions.create({ agent: agent.id, environment_id: environment.id });
    const before = await open();
    const feeds = [];
    for (let i = 0; i < 3; i++) feeds.push(new Feed(await beta().sessions.events.stream(session.id)));
    assert.equal(await open(), before + 3);
    for (const f of feeds) await f.close();
    for (let i = 0; await open() !== before; i++) {
      assert.ok(i < 100, 'streams stay open');
      await new Promise((r) => setTimeout(r, 20));
    }
  });
}
