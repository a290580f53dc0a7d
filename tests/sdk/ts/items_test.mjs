// items_test.mjs - items of the session checklist that are about the official client itself; tests/api/README.md says
// which. The runner of item 108 is left its own 60 s: it is started first and looked at last.
import { assert, collect, fails, Feed, message, said, test, text, types, within } from './kit.mjs';
import { accumulateManagedAgentsEvent, betaTool, errors } from './sdk.mjs';

const IDLE = 60_000; // what the client waits for after the last idle unless it is told otherwise

export function items(world) {
  const sessions = () => world().client.beta.sessions;
  const send = (id, ...events) => sessions().events.send(id, { events });
  const tool = (run = ({ city }) => `${city}: 12 C`) => betaTool({
    name: 'get_weather', description: 'The weather', run,
    inputSchema: { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] },
  });
  const s = {};

  async function open() {
    s.agent ??= await world().client.beta.agents.create({
      name: 'weather', model: 'claude-opus-4-7',
      tools: [{ type: 'custom', name: 'get_weather', description: 'The weather', input_schema: { type: 'object' } }],
    });
    s.environment ??= await world().client.beta.environments.create({ name: 'items' });
    const session = await sessions().create({ agent: s.agent.id, environment_id: s.environment.id });
    return { session, feed: new Feed(await sessions().events.stream(session.id)) };
  }

  // A runner with the client's own patience, once its work is done.
  async function patient() {
    const { session, feed } = await open();
    const p = { session, feed, calls: [] };
    const runner = sessions().events.toolRunner(session.id, { tools: [tool()] });
    p.ended = (async () => {
      for await (const call of runner) p.calls.push(call);
      p.at = Date.now();
    })();
    p.ended.catch(() => {}); // looked at later
    await send(session.id, message('[[tool get_weather {"city":"Oslo"}]] ;; [[say {result}]]'));
    assert.deepEqual(said(await feed.idle()), ['Oslo: 12 C']);
    p.idle = Date.now();
    return p;
  }

  test('items/t_108_runner_answers', async () => { s.patient = await patient(); });

  test('items/t_006_errors_are_the_clients', async () => {
    const missing = await fails(sessions().retrieve('sesn_01' + '2'.repeat(22)));
    assert.ok(missing instanceof errors.NotFoundError, String(missing));
    assert.deepEqual([missing.status, missing.type, missing.errorCode ?? null], [404, 'not_found_error', null]);
    assert.match(missing.requestID ?? '', /^req_/);
    await open();
    const cleared = await fails(sessions().create({
      agent: { type: 'agent_with_overrides', id: s.agent.id, model: null }, environment_id: s.environment.id,
    }));
    assert.deepEqual([cleared.status, cleared.type, cleared.errorCode], [400, 'invalid_request_error', 'agent_model_required']);
  });

  test('items/t_062_accumulator_never_throws', async () => {
    const { session } = await open();
    const stream = await sessions().events.stream(session.id, { event_deltas: ['agent.message', 'agent.thinking'] });
    const feed = new Feed(stream);
    let idles = 0;
    for (const prompt of ['[[think]] [[say one]] [[say two]] [[slow 2 ms]]', '[[long 2000]]', '[[say a]] [[tool get_weather {"city":"x"}]] ;; [[say {result}]]',
      '[[error stream overloaded_error x1]] [[say a b c d e f g h]] [[slow 2 ms]]', '[[cut x1]] [[say a b c d e f g h]]']) {
      await send(session.id, message(prompt));
      idles++;
      const count = (all) => all.filter((e) => e.type === 'session.status_idle').length;
      await feed.until((all) => count(all) >= idles, `${idles} idles`);
      const use = feed.events.at(-1).stop_reason.event_ids?.[0];
      if (use) {
        await send(session.id, { type: 'user.custom_tool_result', custom_tool_use_id: use, content: text('12 C') });
        idles++;
        await feed.until((all) => count(all) >= idles, `${idles} idles`);
      }
    }
    // As the client's documentation has it: the snapshot of an event takes its start, its deltas, and is replaced by it.
    const snapshots = new Map();
    for (const e of feed.events) {
      const id = e.type === 'event_start' ? e.event.id : e.type === 'event_delta' ? e.event_id : e.id;
      snapshots.set(id, accumulateManagedAgentsEvent(snapshots.get(id), e));
    }
    for (const e of (await collect(sessions().events.list(session.id))).filter((x) => x.type === 'agent.message')) {
      assert.deepEqual(snapshots.get(e.id).content, e.content);
    }
    await feed.close();
  });

  test('items/t_109_runner_attached_after_the_call', async () => {
    const { session, feed } = await open();
    await send(session.id, message('[[tool get_weather {"city":"Kiel"}]] ;; [[say {result}]]'));
    await feed.idle(0, 'requires_action');
    const calls = [];
    let ran = 0;
    const rain = tool(() => `rain ${++ran}`);
    for await (const call of sessions().events.toolRunner(session.id, { tools: [rain], maxIdleMs: 300 })) calls.push(call);
    assert.deepEqual([calls.length, calls[0].posted, ran], [1, true, 1], 'once');
    assert.deepEqual(said(await feed.idle()), ['rain 1']);
    // A second one finds the answer in the history.
    for await (const call of sessions().events.toolRunner(session.id, { tools: [rain], maxIdleMs: 300 })) calls.push(call);
    assert.deepEqual([calls.length, ran], [1, 1]);
    assert.equal(feed.events.filter((e) => e.type === 'user.custom_tool_result').length, 1);
    await feed.close();
  });

  test('items/t_110_runner_ends_with_the_session', async () => {
    for (const end of ['archive', 'delete']) {
      const { session, feed } = await open();
      const runner = sessions().events.toolRunner(session.id, { tools: [tool()] }); // its own 60 s would be too long
      const ended = (async () => { for await (const call of runner) assert.fail(`a call: ${call.name}`); })();
      await send(session.id, message('[[say x]]'));
      await feed.idle();
      await sessions()[end](session.id);
      await within(20_000, ended, `the runner to end at once after ${end}`);
      await feed.done;
    }
  });

  test('items/t_111_pages_of_two', async () => {
    const { session, feed } = await open();
    for (const title of ['one', 'two', 'three', 'four', 'five']) await sessions().update(session.id, { title });
    const seen = [];
    for await (const e of sessions().events.list(session.id, { limit: 2 })) seen.push(e);
    assert.deepEqual(seen.map((e) => e.title), ['one', 'two', 'three', 'four', 'five']);
    await feed.until((all) => all.length === 5, 'the same on the stream');
    assert.deepEqual(types(feed.events), types(seen));
    await feed.close();
  });

  test('items/t_108_runner_stops_by_itself', async () => {
    const p = s.patient ?? await patient();
    await within(2 * IDLE, p.ended, 'the runner to stop');
    assert.ok(p.at - p.idle >= IDLE - 5_000, `after ${p.at - p.idle} ms`);
    assert.deepEqual(p.calls.map((c) => [c.name, c.posted, c.isError]), [['get_weather', true, false]]);
    assert.equal((await sessions().retrieve(p.session.id)).status, 'idle');
    await p.feed.close();
  }, { limit: 3 * IDLE });
}
