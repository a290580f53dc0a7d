// tls_test.mjs - a test CA for both sides of the server, and what must not work without it.
import { spawnSync } from 'node:child_process';
import path from 'node:path';
import { assert, collect, Feed, last, message, test } from './kit.mjs';
import { Recorder } from './record.mjs';
import { World } from './world.mjs';

function openssl(...args) {
  const r = spawnSync('openssl', args, { encoding: 'utf8' });
  if (r.status !== 0) throw new Error(`openssl ${args.join(' ')}: ${r.error ?? r.stderr}`);
}

// ca.pem, cert.pem and key.pem for 127.0.0.1 in dir.
export function makeCa(dir) {
  const f = (name) => path.join(dir, name);
  openssl('req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '2', '-subj', '/CN=moonrig test CA', '-keyout', f('ca.key'), '-out', f('ca.pem'));
  openssl('req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '2', '-subj', '/CN=127.0.0.1', '-CA', f('ca.pem'), '-CAkey', f('ca.key'),
    '-addext', 'subjectAltName=IP:127.0.0.1', '-addext', 'basicConstraints=critical,CA:FALSE', '-keyout', f('key.pem'), '-out', f('cert.pem'));
}

export function tlsCases(world, { tls, scripts }) {
  test('tls/everything-was-encrypted', async () => {
    assert.match(world().url, /^https:/);
    assert.ok((await world().asked()).length > 0, 'the model was asked over TLS');
    await assert.rejects(fetch(world().url.replace('https:', 'http:') + '/health'));
  });

  // A server that was not told of the CA must not speak to the model behind it.
  test('tls/an-unknown-ca-is-not-trusted', async () => {
    const recorder = new Recorder(world().recorder.schemas);
    const config = 'return { retries = { max = 1, base_ms = 1 } }';
    const other = await World.open({ recorder, tls, scripts, config });
    try {
      const { beta } = other.client;
      const agent = await beta.agents.create({ name: 'x', model: 'claude-opus-4-7' });
      const [environment] = await collect(beta.environments.list());
      const session = await beta.sessions.create({ agent: agent.id, environment_id: environment.id });
      const feed = new Feed(await beta.sessions.events.stream(session.id));
      await beta.sessions.events.send(session.id, { events: [message('[[say secret]]')] });
      const events = await feed.idle(0, 'retries_exhausted');
      assert.equal(last(events, 'session.error').error.type, 'model_request_failed_error');
      assert.deepEqual(last(events, 'session.error').error.retry_status, { type: 'exhausted' });
      assert.deepEqual(await other.asked(), []);
      await feed.close();
      assert.deepEqual(await recorder.take(), []);
    } finally {
      await other.close();
    }
  });
}
