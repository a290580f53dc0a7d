// main.mjs - runs the suite: schemas from the SDK's types, everything over plain HTTP, then the story again over
// TLS on both sides of the server, in a process that trusts the test's CA (Node reads NODE_EXTRA_CA_CERTS only at
// its start). The last 0.x goes through the story and the errors once, and through what only it does.
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { errorCases } from './errors_test.mjs';
import { flow } from './flow_test.mjs';
import { items } from './items_test.mjs';
import { assert, run, test } from './kit.mjs';
import { messages } from './messages_test.mjs';
import { oldCases } from './old_test.mjs';
import { Recorder } from './record.mjs';
import { schemaCases } from './schema_test.mjs';
import { schemas } from './schema.mjs';
import { version } from './sdk.mjs';
import { surface } from './surface_test.mjs';
import { makeCa, tlsCases } from './tls_test.mjs';
import { workCases } from './work_test.mjs';
import { workerCases } from './worker_test.mjs';
import { World } from './world.mjs';

const only = process.argv.slice(2);
const here = path.dirname(fileURLToPath(import.meta.url));
const scripts = [path.join(here, '../tools.lua')];
const pinned = JSON.parse(fs.readFileSync('package.json', 'utf8')).dependencies['@anthropic-ai/sdk']; // of the suite's own folder
const old = version.startsWith('0.');
const shared = process.env.SDK_TLS; // set in the second process: where CA and schemas are
let world;
const get = () => world;

async function part(options, define) {
  world = await World.open({ scripts, ...options });
  define();
  // A server that does not end well fails the suite, too.
  test(`${shared ? 'tls' : 'world'}/ends-with-status-0`, async () => {
    const all = world.recorder.take();
    const { server, log } = await world.close();
    assert.equal(server, 0, log);
    assert.deepEqual(await all, []);
  });
  return run(only, () => world.recorder.take());
}

async function plain() {
  const checks = await schemas();
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'moonrig-sdk-tls-'));
  let failed;
  try {
    failed = await part({ recorder: new Recorder(checks) }, () => {
      test('world/the-sdk-is-the-pinned-one', async () => assert.equal(version, pinned));
      flow(get);
      workCases(get);
      workerCases(get);
      errorCases(get);
      if (old) return oldCases(get);
      messages(get);
      schemaCases(get);
      items(get);
      surface(get);
    });
    if (old) return failed;
    makeCa(dir);
    checks.save(path.join(dir, 'schemas.json'));
    const tls = spawnSync(process.execPath, [path.join(here, 'main.mjs'), ...only], {
      stdio: 'inherit', env: { ...process.env, SDK_TLS: dir, NODE_EXTRA_CA_CERTS: path.join(dir, 'ca.pem') },
    });
    return failed || tls.status;
  } finally {
    fs.rmSync(dir, { recursive: true, force: true });
  }
}

async function overTls() {
  const tls = { ca: path.join(shared, 'ca.pem'), cert: path.join(shared, 'cert.pem'), key: path.join(shared, 'key.pem') };
  const recorder = new Recorder(await schemas(path.join(shared, 'schemas.json')));
  const config = `return { models = { anthropic = { ca_file = ${JSON.stringify(tls.ca)} } } }`;
  return part({ recorder, tls, config }, () => {
    flow(get, 'tls');
    tlsCases(get, { tls, scripts });
  });
}

process.exitCode = (await (shared ? overTls() : plain())) ? 1 : 0;
process.exit();
