// old_test.mjs - what only 0.x does: another key header, another version, ?beta=true on every path.
import { assert, collect, Feed, message, said, test } from './kit.mjs';

export function oldCases(world) {
  test('old/key-header-version-and-beta-parameter', async () => {
    const n = world().recorder.requests.length;
    await collect(world().client.beta.agents.list());
    const [{ headers, url }] = world().recorder.since(n);
    assert.equal(headers.get('authorization'), null);
    assert.match(headers.get('x-api-key'), /^sk-mr-/);
    assert.equal(headers.get('anthropic-version'), '2023-06-01');
    assert.equal(url.searchParams.get('beta'), 'true');
  });

  test('old/a-bearer-works-as-well', async () => {
    const { beta } = world().connect({ apiKey: null, authToken: world().client.apiKey });
    const agent = await beta.agents.create({ name: 'old', model: 'claude-opus-4-7' });
    const environment = await beta.environments.create({ name: 'old' });
    const session = await beta.sessions.create({ agent: agent.id, environment_id: environment.id });
    const feed = new Feed(await beta.sessions.events.stream(session.id));
    await beta.sessions.events.send(session.id, { events: [message('[[say Old hat.]]')] });
    assert.deepEqual(said(await feed.idle()), ['Old hat.']);
    await feed.close();
  });
}
