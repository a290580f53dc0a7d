// flow_test.mjs - one story from the first agent to the last archive, as an SDK user lives it. Event orders are
// those of the worked traces (API: sessions, worked traces A to D).
import { assert, codeOf, collect, Feed, last, message, said, skip, test, text, types, why } from './kit.mjs';
import { accumulateManagedAgentsEvent, betaTool } from './sdk.mjs';

export function flow(world, prefix = 'flow') {
  const client = () => world().client;
  const beta = () => client().beta;
  const s = {};

  // A session of the story's agent with an open stream.
  async function open(params = {}) {
    const session = await beta().sessions.create({ agent: s.agent.id, environment_id: s.environment.id, ...params });
    const feed = new Feed(await beta().sessions.events.stream(session.id));
    return { session, feed };
  }
  const send = (id, ...events) => beta().sessions.events.send(id, { events });
  const triple = ['session.thread_status_idle', 'session.usage', 'session.status_idle'];
  const begin = ['session.status_running', 'session.thread_status_running'];

  test(`${prefix}/agent`, async () => {
    s.agent = await beta().agents.create({
      name: 'clerk', model: 'claude-opus-4-7', system: 'You keep the books.', metadata: { team: 'finance' },
      tools: [
        { type: 'agent_toolset_20260401', configs: [{ name: 'bash', permission_policy: { type: 'always_ask' } }] },
        { type: 'custom', name: 'get_weather', description: 'The weather of a city', input_schema: { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] } },
        { type: 'custom', name: 'stock_level', description: 'How many are in stock', input_schema: { type: 'object', properties: { article: { type: 'string' } } } },
        { type: 'custom', name: 'always_fails', description: 'Fails', input_schema: { type: 'object' } },
      ],
    });
    assert.match(s.agent._request_id, /^req_/);
    assert.equal(s.agent.version, 1);
    assert.equal(s.agent.model.id, 'claude-opus-4-7');
    assert.equal(s.agent.model.speed, 'standard');
    assert.deepEqual(s.agent.tools[0].default_config, { enabled: true, permission_policy: { type: 'always_allow' } });
    assert.deepEqual(s.agent.tools[0].configs, [{ type: 'bash', name: 'bash', enabled: true, permission_policy: { type: 'always_ask' } }]);
    assert.deepEqual((await beta().agents.retrieve(s.agent.id)).tools, s.agent.tools);
  });

  test(`${prefix}/agent-versions`, async () => {
    const two = await beta().agents.update(s.agent.id, { version: 1, description: 'Keeps books' });
    assert.equal(two.version, 2);
    assert.equal((await beta().agents.retrieve(s.agent.id, { version: 1 })).description, null);
    assert.deepEqual((await collect(beta().agents.versions.list(s.agent.id, { limit: 1 }))).map((v) => v.version), [2, 1]);
    s.agent = two;
  });

  test(`${prefix}/environment`, async () => {
    s.environment = await beta().environments.create({
      name: 'office', description: 'for tests', metadata: { a: '1' },
      config: { type: 'cloud', networking: { type: 'limited', allowed_hosts: ['example.com'] } },
    });
    assert.deepEqual(s.environment.config.networking, { type: 'limited', allowed_hosts: ['example.com'], allow_mcp_servers: false, allow_package_managers: false });
    const changed = await beta().environments.update(s.environment.id, { metadata: { a: null, b: '2' } });
    assert.deepEqual(changed.metadata, { b: '2' });
    assert.deepEqual(changed.config, s.environment.config);
    assert.deepEqual(await beta().environments.retrieve(s.environment.id).then((e) => e.metadata), { b: '2' });
    assert.ok((await collect(beta().environments.list())).some((e) => e.name === 'default'));
  });

  test(`${prefix}/roster-and-budget`, async () => { // both forms, on agents and in sessions; every answer is checked against its type
    const budget = { type: 'limit', max_list_cost: { amount: '2500', currency: 'USD' } };
    const worker = await beta().agents.create({ name: 'worker', model: 'claude-opus-4-7' });
    for (const multiagent of [
      { type: 'coordinator', agents: [worker.id, { type: 'self' }, { type: 'advisor', model: 'claude-opus-4-7' }] },
      { type: 'multiagent_20261001', advisor: { type: 'enabled', model: 'claude-opus-4-7' }, subagents: { type: 'enabled', predefined_agents: [worker.id, { type: 'self' }] } },
    ]) {
      const lead = await beta().agents.create({ name: 'lead', model: 'claude-opus-4-7', tools: [{ type: 'agent_toolset_20260401' }], multiagent });
      assert.equal(lead.multiagent.type, multiagent.type);
      const session = await beta().sessions.create({ agent: { type: 'agent_with_overrides', id: lead.id, system: 'mine' }, environment_id: s.environment.id, budget });
      assert.deepEqual(session.budget, budget);
      const members = session.agent.multiagent.agents ?? session.agent.multiagent.subagents.predefined_agents;
      assert.deepEqual(members.slice(0, 2).map((m) => [m.name, m.system]), [['worker', null], ['lead', 'mine']]);
      assert.equal((await beta().sessions.update(session.id, { budget: null })).budget, null);
      await assert.rejects(beta().sessions.update(session.id, { budget }), (e) => e.status === 400 && codeOf(e) === 'budget_create_only');
      const updated = await collect(beta().sessions.events.list(session.id));
      assert.deepEqual(types(updated), ['session.updated']);
      await beta().sessions.delete(session.id);
    }
  });

  test(`${prefix}/file`, async () => {
    const bytes = 'invoice,amount\nA-1,10.00\n'.repeat(1000);
    s.file = await client().files.upload({ file: new File([bytes], 'books/2026/invoices.csv', { type: 'text/csv' }) });
    assert.equal(s.file.filename, 'invoices.csv');
    assert.equal(s.file.mime_type, 'text/csv');
    assert.equal(s.file.size_bytes, bytes.length);
    assert.equal(s.file.downloadable, false);
    assert.deepEqual(await client().files.retrieveMetadata(s.file.id).then((f) => f.id), s.file.id);
    assert.ok((await collect(beta().files.list())).some((f) => f.id === s.file.id));
    assert.deepEqual((await collect(client().files.list({ ids: [s.file.id, 'file_01' + '2'.repeat(22)] }))).map((f) => f.id), [s.file.id]);
  });

  test(`${prefix}/session`, async () => {
    const session = await beta().sessions.create({
      agent: { type: 'agent', id: s.agent.id, version: 2 }, environment_id: s.environment.id, title: 'March',
      metadata: { month: '3' }, resources: [{ type: 'file', file_id: s.file.id, mount_path: '/invoices.csv' }],
    });
    assert.equal(session.status, 'idle');
    assert.equal(session.agent.version, 2);
    assert.equal(session.resources.length, 1);
    assert.notEqual(session.resources[0].file_id, s.file.id);
    assert.equal(session.resources[0].mount_path, '/mnt/session/uploads/invoices.csv');
    const again = await beta().sessions.retrieve(session.id);
    assert.deepEqual(again.agent, session.agent);
    s.first = session;
  });

  test(`${prefix}/stream-before-send`, async () => {
    s.feed = new Feed(await beta().sessions.events.stream(s.first.id)); // resolves although nothing has happened
    const sent = await send(s.first.id, message('[[say Hello from the ledger.]]'));
    assert.equal(sent.data.length, 1);
    assert.match(sent.data[0].id, /^sevt_01/);
    const events = await s.feed.idle();
    assert.deepEqual(types(events), [...begin, 'user.message', 'span.model_request_start', 'agent.message', 'span.model_request_end', ...triple]);
    assert.deepEqual(said(events), ['Hello from the ledger.']);
    assert.equal(events[2].id, sent.data[0].id);
    assert.ok(events[2].processed_at);
    assert.equal(events[1].agent_name, 'clerk');
    assert.equal(events.at(-1).stop_details, null);
    assert.equal(events[5].model_request_start_id, events[3].id);
    assert.ok(events[5].model_usage.output_tokens > 0);
    for (let i = 1; i < events.length; i++) assert.ok(events[i].processed_at > events[i - 1].processed_at, `order of ${events[i].type}`);
  });

  test(`${prefix}/list-is-what-was-streamed`, async () => {
    const listed = await collect(beta().sessions.events.list(s.first.id));
    assert.deepEqual(listed, s.feed.events);
    assert.deepEqual(await collect(beta().sessions.events.list(s.first.id, { limit: 2 })), listed);
    assert.deepEqual(await collect(beta().sessions.events.list(s.first.id, { order: 'desc', limit: 4 })), listed.toReversed());
    const some = await collect(beta().sessions.events.list(s.first.id, { types: ['agent.message', 'user.message'] }));
    assert.deepEqual(types(some), ['user.message', 'agent.message']);
  });

  test(`${prefix}/threads`, async () => {
    const threads = await collect(beta().sessions.threads.list(s.first.id));
    assert.equal(threads.length, 1);
    assert.equal(threads[0].parent_thread_id, null);
    assert.equal(threads[0].id, s.feed.events[1].session_thread_id);
    assert.equal((await beta().sessions.threads.retrieve(threads[0].id, { session_id: s.first.id })).status, 'idle');
    const events = await collect(beta().sessions.threads.events.list(threads[0].id, { session_id: s.first.id }));
    assert.deepEqual(types(events), types(s.feed.events));
    const stream = await beta().sessions.threads.events.stream(threads[0].id, { session_id: s.first.id });
    const feed = new Feed(stream);
    const from = s.feed.events.length;
    await send(s.first.id, message('[[say Again.]]'));
    await feed.until((all) => all.some((e) => e.type === 'session.thread_status_idle'), 'the thread to be idle');
    await s.feed.idle(from);
    await feed.close();
  });

  test(`${prefix}/previews`, async () => {
    const { session, feed } = await open();
    const deltas = new Feed(await beta().sessions.events.stream(session.id, { event_deltas: ['agent.message'] }));
    await send(session.id, message('[[say One two three four five.]] [[slow 5 ms]]'));
    const events = await deltas.idle();
    await feed.idle();
    assert.ok(!feed.events.some((e) => e.type.startsWith('event_')), 'previews only where asked for');
    let message_;
    let seen = '';
    for (const e of events) {
      message_ = accumulateManagedAgentsEvent(message_, e);
      if (e.type === 'event_delta') seen += e.delta.content.text;
    }
    const whole = last(events, 'agent.message');
    assert.equal(last(events, 'event_start').event.id, whole.id);
    assert.ok(seen.length > 0 && whole.content[0].text.startsWith(seen));
    assert.deepEqual(message_.content, whole.content);
    assert.ok(!types(await collect(beta().sessions.events.list(session.id))).some((t) => t.startsWith('event_')));
    await deltas.close();
    await feed.close();
  });

  test(`${prefix}/custom-tools-answered-by-the-client`, async () => {
    const { session, feed } = await open();
    await send(session.id, message('[[tools get_weather {"city":"Oslo"} | get_weather {"city":"Rome"}]] ;; [[say Oslo and Rome: {result}]]'));
    const asked = await feed.idle(0, 'requires_action');
    assert.deepEqual(types(asked), [...begin, 'user.message', 'span.model_request_start', 'agent.custom_tool_use', 'agent.custom_tool_use', 'span.model_request_end', ...triple]);
    const [oslo, rome] = asked.filter((e) => e.type === 'agent.custom_tool_use');
    assert.deepEqual([oslo.name, oslo.input, rome.input], ['get_weather', { city: 'Oslo' }, { city: 'Rome' }]);
    assert.deepEqual(asked.at(-1).stop_reason.event_ids, [oslo.id, rome.id]);
    const first = await send(session.id, { type: 'user.custom_tool_result', custom_tool_use_id: oslo.id, content: text('4 C'), is_error: false });
    assert.ok(first.data[0].processed_at, 'a result is processed on receipt');
    let from = asked.length;
    const partial = await feed.idle(from, 'requires_action');
    assert.deepEqual(types(partial), ['user.custom_tool_result', ...triple]);
    assert.deepEqual(partial.at(-1).stop_reason.event_ids, [rome.id]);
    assert.equal((await beta().sessions.retrieve(session.id)).status, 'idle');
    from += partial.length;
    await send(session.id, { type: 'user.custom_tool_result', custom_tool_use_id: rome.id, content: text('18 C') });
    const rest = await feed.idle(from);
    assert.deepEqual(types(rest), ['user.custom_tool_result', ...begin, 'span.model_request_start', 'agent.message', 'span.model_request_end', ...triple]);
    assert.deepEqual(said(rest), ['Oslo and Rome: 4 C\n18 C']);
    await feed.close();
  });

  test(`${prefix}/tool-runner-of-the-sdk`, async () => {
    const { session, feed } = await open();
    const calls = [];
    const weather = betaTool({
      name: 'get_weather', description: 'The weather of a city',
      inputSchema: { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] },
      run: ({ city }) => `${city}: 12 C`,
    });
    const runner = beta().sessions.events.toolRunner(session.id, { tools: [weather], maxIdleMs: 300 });
    const ended = (async () => { for await (const call of runner) calls.push(call); })();
    await send(session.id, message('[[tools get_weather {"city":"Oslo"} | get_weather {"city":"Bonn"}]] ;; [[say {result}]]'));
    const events = await feed.idle();
    await ended; // by itself, 300 ms after the last idle
    assert.deepEqual(calls.map((c) => [c.name, c.posted, c.isError]), [['get_weather', true, false], ['get_weather', true, false]]);
    assert.deepEqual(said(events), ['Oslo: 12 C\nBonn: 12 C']);
    await feed.close();
  });

  test(`${prefix}/tool-runner-attached-later`, async () => {
    const { session, feed } = await open();
    await send(session.id, message('[[tool get_weather {"city":"Kiel"}]] ;; [[say {result}]]'));
    await feed.idle(0, 'requires_action');
    const weather = betaTool({ name: 'get_weather', description: 'w', inputSchema: { type: 'object' }, run: () => 'rain' });
    const calls = [];
    for await (const call of beta().sessions.events.toolRunner(session.id, { tools: [weather], maxIdleMs: 300 })) calls.push(call);
    assert.deepEqual(calls.map((c) => [c.posted, c.confirmation]), [[true, undefined]]);
    assert.deepEqual(said(await feed.idle()), ['rain']);
    await feed.close();
  });

  // The handler in Lua owns the tool: the session does not go idle, and a client that answers is refused by name.
  test(`${prefix}/tool-runner-against-a-lua-handler`, async () => {
    const { session, feed } = await open();
    const n = world().recorder.requests.length;
    const rival = betaTool({ name: 'stock_level', description: 'x', inputSchema: { type: 'object' }, run: () => 'nothing at all' });
    const calls = [];
    const runner = beta().sessions.events.toolRunner(session.id, { tools: [rival], maxIdleMs: 300 });
    const ended = (async () => { for await (const call of runner) calls.push(call); })();
    await send(session.id, message('[[tool stock_level {"article":"nails"}]] ;; [[say {result}]]'));
    const events = await feed.idle();
    await ended;
    assert.deepEqual(calls.map((c) => c.posted), [false], 'the runner\'s answer is refused');
    const refused = world().recorder.since(n).filter((r) => r.verb === 'POST' && r.status === 400);
    assert.equal(refused.length, 1, 'and not tried again');
    assert.deepEqual(types(events), [...begin, 'user.message', 'span.model_request_start', 'agent.custom_tool_use', 'span.model_request_end', 'user.custom_tool_result', 'span.model_request_start', 'agent.message', 'span.model_request_end', ...triple]);
    assert.deepEqual(JSON.parse(said(events)[0]), { article: 'nails', pieces: 50 });
    await feed.close();
  });

  test(`${prefix}/lua-handler-refuses-a-clients-result-naming-the-owner`, async () => {
    const { session, feed } = await open();
    await send(session.id, message('[[tool stock_level {"article":"x"}]] ;; [[say {result}]]'));
    const events = await feed.until((all) => all.some((e) => e.type === 'agent.custom_tool_use'), 'the call');
    const use = last(events, 'agent.custom_tool_use');
    await assert.rejects(send(session.id, { type: 'user.custom_tool_result', custom_tool_use_id: use.id, content: text('mine') }),
      (e) => e.status === 400 && /events\[0\]/.test(why(e)) && /stock_level/.test(why(e)));
    await feed.idle();
    await feed.close();
  });

  test(`${prefix}/lua-handler-that-fails`, async () => {
    const { session, feed } = await open();
    await send(session.id, message('[[tool always_fails {}]] ;; [[say so: {result}]]'));
    const events = await feed.idle();
    assert.equal(last(events, 'user.custom_tool_result').is_error, true);
    assert.match(said(events)[0], /the warehouse is closed/);
    await feed.close();
  });

  test(`${prefix}/confirmation-allowed`, async () => {
    const { session, feed } = await open();
    await send(session.id, message('[[say I will look.]] [[tool bash {"command":"echo $((6*7))"}]] ;; [[say {result}]]'));
    const asked = await feed.idle(0, 'requires_action');
    assert.deepEqual(types(asked), [...begin, 'user.message', 'span.model_request_start', 'agent.message', 'agent.tool_use', 'span.model_request_end', ...triple]);
    const use = last(asked, 'agent.tool_use');
    assert.equal(use.evaluated_permission, 'ask');
    assert.deepEqual(use.evaluation, { type: 'always_ask' });
    assert.deepEqual(asked.at(-1).stop_reason.event_ids, [use.id]);
    await assert.rejects(send(session.id, message('hello?')), (e) => e.status === 400 && why(e).includes(`waiting on responses to events [${use.id}]`));
    await send(session.id, { type: 'user.tool_confirmation', tool_use_id: use.id, result: 'allow' });
    const rest = await feed.idle(asked.length);
    assert.deepEqual(types(rest), [...begin, 'user.tool_confirmation', 'agent.tool_result', 'span.model_request_start', 'agent.message', 'span.model_request_end', ...triple]);
    assert.equal(last(rest, 'agent.tool_result').tool_use_id, use.id);
    if (world().sandbox) assert.deepEqual(said(rest), ['42']);
    else assert.equal(last(rest, 'agent.tool_result').is_error, true);
    await feed.close();
  });

  test(`${prefix}/confirmation-denied`, async () => {
    const { session, feed } = await open();
    await send(session.id, message('[[tool bash {"command":"rm -rf build"}]] ;; [[say {result}]]'));
    const asked = await feed.idle(0, 'requires_action');
    const use = last(asked, 'agent.tool_use');
    await send(session.id, { type: 'user.tool_confirmation', tool_use_id: use.id, result: 'deny', deny_message: 'Use staging.' });
    const rest = await feed.idle(asked.length);
    assert.deepEqual(types(rest), [...begin, 'user.tool_confirmation', 'agent.tool_result', 'span.model_request_start', 'agent.message', 'span.model_request_end', ...triple]);
    assert.equal(last(rest, 'agent.tool_result').is_error, true);
    assert.match(said(rest)[0], /Use staging\./);
    await assert.rejects(send(session.id, { type: 'user.tool_confirmation', tool_use_id: use.id, result: 'allow' }), (e) => e.status === 400);
    await feed.close();
  });

  test(`${prefix}/interrupt-and-redirect`, async () => {
    const { session, feed } = await open();
    await send(session.id, message('[[long 4000]] [[slow 20 ms]]'));
    await feed.until((all) => all.some((e) => e.type === 'span.model_request_start'), 'the model to be asked');
    const sent = await send(session.id, { type: 'user.interrupt' }, message('[[say Just three lines.]]'));
    assert.deepEqual(sent.data.map((e) => e.processed_at ?? null), [null, null]);
    await feed.until((all) => all.filter((e) => e.type === 'session.status_idle').length === 2, 'two idles');
    assert.deepEqual(types(feed.events), [
      ...begin, 'user.message', 'span.model_request_start', 'span.model_request_end', 'user.interrupt', ...triple,
      ...begin, 'user.message', 'span.model_request_start', 'agent.message', 'span.model_request_end', ...triple,
    ]);
    const end = feed.events[4];
    assert.equal(end.is_error, true);
    assert.deepEqual(feed.events[8].stop_reason, { type: 'end_turn' });
    assert.deepEqual([feed.events[5].id, feed.events[11].id], sent.data.map((e) => e.id));
    assert.deepEqual(said(feed.events), ['Just three lines.']);
    await feed.close();
  });

  test(`${prefix}/interrupt-while-blocked`, async () => {
    const { session, feed } = await open();
    await send(session.id, message('[[tool get_weather {"city":"Oslo"}]]'));
    const asked = await feed.idle(0, 'requires_action');
    const n = (await world().asked()).length;
    await send(session.id, { type: 'user.interrupt' });
    const rest = await feed.idle(asked.length);
    assert.deepEqual(types(rest).slice(-3), triple);
    assert.ok(rest.some((e) => e.is_error === true && (e.tool_use_id ?? e.custom_tool_use_id) === last(asked, 'agent.custom_tool_use').id));
    assert.equal((await world().asked()).length, n, 'the model is not asked');
    await feed.close();
  });

  // On a cloud environment the server runs the toolset: a runner that knows the name may not answer, too.
  test(`${prefix}/tool-runner-cannot-answer-for-the-server`, async () => {
    const open_ = await beta().agents.create({ name: 'hands', model: 'claude-opus-4-7', tools: [{ type: 'agent_toolset_20260401' }] });
    const { session, feed } = await open({ agent: open_.id });
    const rival = betaTool({ name: 'bash', description: 'x', inputSchema: { type: 'object' }, run: () => 'made up' });
    const calls = [];
    const runner = beta().sessions.events.toolRunner(session.id, { tools: [rival], maxIdleMs: 300 });
    const ended = (async () => { for await (const call of runner) calls.push(call); })();
    await send(session.id, message('[[tool bash {"command":"sleep 0.3; echo real"}]] ;; [[say {result}]]'));
    const events = await feed.idle();
    await ended;
    assert.deepEqual(calls.map((c) => c.posted), [false]);
    assert.deepEqual(types(events), [...begin, 'user.message', 'span.model_request_start', 'agent.tool_use', 'span.model_request_end', 'agent.tool_result', 'span.model_request_start', 'agent.message', 'span.model_request_end', ...triple]);
    if (world().sandbox) assert.deepEqual(said(events), ['real']);
    await feed.close();
  });

  test(`${prefix}/outputs`, async () => {
    if (!world().sandbox) skip('sandboxes do not work on this machine: moonrig doctor says why');
    const agent = await beta().agents.create({ name: 'writer', model: 'claude-opus-4-7', tools: [{ type: 'agent_toolset_20260401' }] });
    const { session, feed } = await open({ agent: agent.id, resources: [{ type: 'file', file_id: s.file.id, mount_path: '/in.csv' }] });
    await send(session.id, message('[[tool bash {"command":"head -2 /mnt/session/uploads/in.csv > /mnt/session/outputs/out.csv"}]] ;; [[tool read {"file_path":"/mnt/session/outputs/out.csv"}]] ;; [[say {result}]]'));
    assert.deepEqual(said(await feed.idle()).map((t) => t.trimEnd()), ['invoice,amount\nA-1,10.00']);
    let files = [];
    for (let i = 0; i < 200 && !files.length; i++) {
      files = (await collect(beta().files.list({ scope_id: session.id }))).filter((f) => f.downloadable);
      await new Promise((r) => setTimeout(r, 50));
    }
    assert.deepEqual(files.map((f) => [f.filename, f.downloadable, f.scope]), [['out.csv', true, { type: 'session', id: session.id }]]);
    assert.equal(await (await client().files.download(files[0].id)).text(), 'invoice,amount\nA-1,10.00\n');
    await feed.close();
  });

  test(`${prefix}/tool-runner-ends-with-the-session`, async () => {
    for (const end of ['archive', 'delete']) {
      const { session, feed } = await open();
      const runner = beta().sessions.events.toolRunner(session.id, { tools: [], maxIdleMs: 0 });
      const ended = (async () => { for await (const call of runner) assert.fail(`a call: ${call.name}`); })();
      await send(session.id, message('[[say x]]'));
      await feed.idle();
      await beta().sessions[end](session.id);
      await ended;
      await feed.done;
    }
  });

  test(`${prefix}/model-fails-and-recovers`, async () => {
    const { session, feed } = await open();
    await send(session.id, message('[[error 529 x1 retry-ms 50]] [[say Back again.]]'));
    const events = await feed.idle();
    assert.deepEqual(types(events), [
      ...begin, 'user.message', 'span.model_request_start', 'span.model_request_end', 'session.error', 'session.thread_status_rescheduled',
      'session.status_rescheduled', ...begin, 'span.model_request_start', 'agent.message', 'span.model_request_end', ...triple,
    ]);
    assert.deepEqual([last(events, 'session.error').error.type, last(events, 'session.error').error.retry_status], ['model_overloaded_error', { type: 'retrying' }]);
    await feed.close();
  });

  test(`${prefix}/usage`, async () => {
    const { session, feed } = await open();
    await send(session.id, message('[[say a]] [[usage in=100 out=7 read=30 write=20]]'));
    const usage = last(await feed.idle(), 'session.usage').usage;
    assert.deepEqual([usage.input_tokens, usage.output_tokens, usage.cache_read_input_tokens], [100, 7, 30]);
    const now = await beta().sessions.retrieve(session.id);
    assert.deepEqual([now.usage.input_tokens, now.usage.output_tokens], [100, 7]);
    await feed.close();
  });

  test(`${prefix}/update`, async () => {
    const { session, feed } = await open({ title: 'old', metadata: { keep: '1', drop: '2' } });
    const now = await beta().sessions.update(session.id, { title: 'new', metadata: { drop: null, add: '3' } });
    assert.deepEqual([now.title, now.metadata], ['new', { keep: '1', add: '3' }]);
    const event = last(await feed.until((all) => all.length, 'session.updated'), 'session.updated');
    assert.deepEqual([event.title, event.metadata, 'agent' in event, 'budget' in event], ['new', { keep: '1', add: '3' }, false, false]);
    await feed.close();
  });

  test(`${prefix}/resources`, async () => {
    const { session, feed } = await open();
    const added = await beta().sessions.resources.add(session.id, { type: 'file', file_id: s.file.id });
    assert.equal(added.mount_path, `/mnt/session/uploads/${s.file.id}`);
    assert.deepEqual((await collect(beta().sessions.resources.list(session.id))).map((r) => r.id), [added.id]);
    assert.equal((await beta().sessions.resources.retrieve(added.id, { session_id: session.id })).file_id, added.file_id);
    await assert.rejects(beta().sessions.resources.update(added.id, { session_id: session.id, authorization_token: 't' }), (e) => e.status === 400);
    assert.equal((await beta().sessions.resources.delete(added.id, { session_id: session.id })).type, 'session_resource_deleted');
    assert.equal((await client().files.retrieveMetadata(s.file.id)).id, s.file.id, 'the original stays');
    await feed.close();
  });

  test(`${prefix}/models`, async () => {
    const models = await collect(client().models.list());
    assert.ok(models.some((m) => m.id === 'claude-opus-4-7'));
    assert.equal((await beta().models.retrieve('claude-opus-4-7')).id, 'claude-opus-4-7');
    assert.ok((await collect(beta().models.list({ limit: 1 }))).length === models.length);
  });

  test(`${prefix}/lists`, async () => {
    const ids = [];
    for (let i = 0; i < 5; i++) ids.push((await beta().sessions.create({ agent: s.agent.id, environment_id: s.environment.id, title: `n${i}` })).id);
    const all = await collect(beta().sessions.list({ limit: 2 }));
    assert.deepEqual(all.slice(0, 5).map((x) => x.id), ids.toReversed());
    assert.equal(new Set(all.map((x) => x.id)).size, all.length);
    assert.ok((await collect(beta().sessions.list({ limit: 3, order: 'asc' }))).slice(-5).every((x, i) => x.id === ids[i]));
    assert.deepEqual((await collect(beta().sessions.list({ agent_id: 'agent_01' + '2'.repeat(22) }))), []);
    const idle = await collect(beta().sessions.list({ statuses: ['idle', 'running'], agent_id: s.agent.id }));
    assert.deepEqual(idle.map((x) => x.id), all.filter((x) => x.agent.id === s.agent.id).map((x) => x.id));
    const page = await beta().sessions.list({ limit: 2 });
    assert.equal(page.prev_page, null);
    const next = await page.getNextPage();
    const back = await beta().sessions.list({ limit: 2, page: next.prev_page });
    assert.deepEqual(back.data.map((x) => x.id), page.data.map((x) => x.id));
    assert.ok((await collect(beta().agents.list({ limit: 1 }))).some((a) => a.id === s.agent.id));
  });

  test(`${prefix}/archive`, async () => {
    const archived = await beta().sessions.archive(s.first.id);
    assert.equal(archived.status, 'terminated');
    assert.ok(archived.archived_at);
    await s.feed.done;
    assert.equal(s.feed.error, null);
    assert.equal(s.feed.events.at(-1).type, 'session.status_terminated');
    assert.deepEqual(types(await collect(beta().sessions.events.list(s.first.id))), types(s.feed.events));
    await assert.rejects(send(s.first.id, message('still there?')), (e) => e.status === 400 || e.status === 404);
    assert.ok(!(await collect(beta().sessions.list())).some((x) => x.id === s.first.id));
    assert.ok((await collect(beta().sessions.list({ include_archived: true }))).some((x) => x.id === s.first.id));
    for await (const call of beta().sessions.events.toolRunner(s.first.id, { tools: [] })) assert.fail(`a call: ${call.name}`);
  });

  test(`${prefix}/delete`, async () => {
    const { session, feed } = await open();
    assert.deepEqual(await beta().sessions.delete(session.id).then((d) => [d.id, d.type]), [session.id, 'session_deleted']);
    await feed.done;
    assert.equal(feed.events.at(-1).type, 'session.deleted');
    await assert.rejects(beta().sessions.retrieve(session.id), (e) => e.status === 404);
    const extra = await beta().environments.create({ name: 'short-lived' });
    assert.equal((await beta().environments.archive(extra.id)).id, extra.id);
    assert.equal((await beta().environments.delete(extra.id)).type, 'environment_deleted');
    assert.deepEqual((await client().files.delete(s.file.id)).id, s.file.id);
    await assert.rejects(client().files.retrieveMetadata(s.file.id), (e) => e.status === 404);
    const gone = await beta().agents.archive(s.agent.id);
    assert.ok(gone.archived_at);
    await assert.rejects(beta().sessions.create({ agent: s.agent.id, environment_id: s.environment.id }), (e) => e.status === 400);
  });
}
