// surface_test.mjs - the operation table of the program against the SDK's resource files: nothing that the SDK can
// ask is missing unnoticed, and what is not built yet says so.
import fs from 'node:fs';
import { spawnSync } from 'node:child_process';
import { assert, test } from './kit.mjs';
import { operations, sources } from './surface.mjs';
import { bin } from './world.mjs';

// Left out on purpose: the administration of the vendor's own organizations.
const VENDOR = /^\/v1\/organizations?(\/|$)/;
// Only repositories have a token to change, and those come later: until then every call is refused.
const ONLY_REFUSES = ['POST /v1/sessions/{}/resources/{}'];
// The SDK takes these paths from an earlier answer (results_url).
const FROM_ANSWERS = { 'messages.batches.results': '/v1/messages/batches/{}/results', 'beta.messages.batches.results': '/v1/messages/batches/{}/results' };

const bare = (path) => path.replace(/\{[^}]*\}/g, '{}');
const plain = (name) => name.replace(/^beta\./, '').replaceAll('_', '').toLowerCase();

function table() {
  const r = spawnSync(bin, ['api', '--list', '--json'], { encoding: 'utf8' });
  assert.equal(r.status, 0, r.stderr);
  return r.stdout.trim().split('\n').map((line) => JSON.parse(line));
}

export function surface(world) {
  const sdk = () => operations().map((o) => ({ ...o, path: o.path ?? FROM_ANSWERS[o.name] }));

  test('surface/every-call-of-the-sdk-is-understood', async () => {
    let calls = 0;
    for (const f of sources()) calls += fs.readFileSync(f, 'utf8').match(/\b(?:this\s*\._client|client)\s*\.(?:get|post|put|patch|delete|getAPIList)\s*[(<]/g)?.length ?? 0;
    const found = operations();
    assert.equal(found.length, calls, 'a call that the reader of the sources does not see');
    assert.deepEqual(found.filter((o) => !o.path).map((o) => o.name).sort(), Object.keys(FROM_ANSWERS).sort());
    assert.ok(found.length > 300);
  });

  test('surface/nothing-of-the-sdk-is-missing', async () => {
    const have = new Set(table().map((o) => `${o.verb} ${bare(o.path)}`));
    const missing = sdk().filter((o) => !VENDOR.test(o.path) && !have.has(`${o.verb} ${o.path}`));
    assert.deepEqual(missing.map((o) => `${o.name}: ${o.verb} ${o.path}`), []);
  });

  test('surface/names-are-those-of-the-sdk', async () => {
    const names = new Map(table().map((o) => [`${o.verb} ${bare(o.path)}`, o.name]));
    const wrong = sdk().filter((o) => !VENDOR.test(o.path)).filter((o) => plain(o.name) !== plain(names.get(`${o.verb} ${o.path}`) ?? ''));
    assert.deepEqual(wrong.map((o) => `${o.name} is ${names.get(`${o.verb} ${o.path}`)} here`), []);
  });

  test('surface/nothing-more-under-v1', async () => {
    const known = new Set(sdk().map((o) => `${o.verb} ${o.path}`));
    const more = table().filter((o) => o.path.startsWith('/v1/') && !known.has(`${o.verb} ${bare(o.path)}`));
    assert.deepEqual(more.map((o) => `${o.name}: ${o.verb} ${o.path}`), []);
    const routes = table().map((o) => `${o.verb} ${bare(o.path)}`);
    assert.equal(new Set(routes).size, routes.length, 'a route twice');
  });

  test('surface/what-is-not-built-yet-says-so', async () => {
    const todo = table().filter((o) => !o.implemented);
    assert.ok(todo.length > 0);
    for (const o of todo) {
      const path = o.path.replace(/\{[^}]*\}/g, 'x_01' + '2'.repeat(22));
      const beta = path.startsWith('/v1/memory_stores') ? 'agent-memory-2026-07-22' : path.startsWith('/v1/dreams') ? 'dreaming-2026-04-21'
        : path.startsWith('/v1/tunnels') ? 'mcp-tunnels-2026-06-22' : 'managed-agents-2026-04-01';
      const r = await world().raw(o.verb, path, { headers: { 'anthropic-beta': beta }, json: o.verb === 'POST' ? {} : undefined });
      const body = await r.json();
      assert.equal(r.status, 501, `${o.verb} ${path}: ${r.status}`);
      assert.equal(body.error.type, 'api_error');
      assert.ok(body.error.message.includes(o.name), body.error.message);
      assert.equal(r.headers.get('x-should-retry'), 'false');
    }
  });

  // Runs last: what is built was used by this suite, with an answer that fits its type.
  test('surface/what-is-built-was-used', async () => {
    const seen = world().recorder.seen;
    const types = new Map(sdk().map((o) => [`${o.verb} ${o.path}`, o.kind]));
    const unused = table().filter((o) => o.implemented && o.path.startsWith('/v1/')).map((o) => `${o.verb} ${bare(o.path)}`)
      .filter((route) => !seen.has(route) && !['binary', 'none'].includes(types.get(route)) && !ONLY_REFUSES.includes(route));
    assert.deepEqual(unused, []);
  });
}
