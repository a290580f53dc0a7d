// main.mjs - runs the suite: schemas from the SDK's types, a world over plain HTTP, then the same story's heart
// over TLS in a process that trusts the test's CA (Node reads NODE_EXTRA_CA_CERTS only at its start).
import { run } from './kit.mjs';
import { Recorder } from './record.mjs';
import { schemas } from './schema.mjs';
import { World } from './world.mjs';
import { flow } from './flow_test.mjs';
import path from 'node:path';
import { execFileSync } from 'node:child_process';
import { bin, top } from './world.mjs';

const only = process.argv.slice(2);
let world;
const recorder = new Recorder(await schemas());
flow(() => world);
world = await World.open({ recorder, scripts: [path.join(top, 'tests/sdk/ts/tools.lua')] });
const failed = await run(only, () => recorder.take());
const end = await world.close();
console.log(end);
process.exit(failed ? 1 : 0);
