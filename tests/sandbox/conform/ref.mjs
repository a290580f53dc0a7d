// Plays the reference toolset: a call as a JSON line in, its result as a JSON line out. Runs in a sandbox like ours.
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';
const require = createRequire(process.argv[2] + '/');
const { betaAgentToolset20260401 } = require('@anthropic-ai/sdk/tools/agent-toolset/node');

const tools = {};
for (const t of betaAgentToolset20260401({
  workdir: '/workspace', allowedRoots: ['/tmp', '/mnt/session'], readOnlyRoots: ['/mnt/session/uploads'],
})) tools[t.name] = t;
const path = process.env.PATH;

async function run({ tool, input, rg }) {
  process.env.PATH = tool === 'grep' && !rg ? '/nowhere' : path; // where grep looks for ripgrep
  try {
    return { error: false, text: await tools[tool].run(input) };
  } catch (e) {
    return { error: true, text: (e.constructor.name === 'ToolError' ? '' : 'Error: ') + e.message };
  } finally {
    process.env.PATH = path;
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  const asked = JSON.parse(line);
  const said = Array.isArray(asked) ? await Promise.all(asked.map(run)) : await run(asked);
  process.stdout.write(JSON.stringify(said) + '\n');
}
process.exit(0);
