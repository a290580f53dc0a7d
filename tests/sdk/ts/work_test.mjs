// work_test.mjs - what runs longer: an outcome and its grader, a coordinator with two threads, a budget (API:
// sessions §11 to §13, worked traces E and F). The models' parts are in the texts (tests/mock/messages.py).
import { randomUUID } from 'node:crypto';
import { assert, collect, fails, Feed, last, message, said, test, types } from './kit.mjs';

export function workCases(world, prefix = 'work') {
  const beta = () => world().client.beta;
  const s = {};
  const model = 'claude-opus-4-7';
  const ask = { type: 'agent_toolset_20260401', configs: [{ name: 'bash', permission_policy: { type: 'always_ask' } }] };
  const begin = ['session.status_running', 'session.thread_status_running'];
  const turn = ['span.model_request_start', 'agent.message', 'span.model_request_end'];
  const triple = ['session.thread_status_idle', 'session.usage', 'session.status_idle'];
  const of = (events, type) => events.filter((e) => e.type === type);
  const send = async (id, ...events) => (await beta().sessions.events.send(id, { events })).data;
  const refused = async (promise, what) => {
    const e = await fails(promise);
    assert.equal(e.status, 400, e.message);
    if (what) assert.ok(e.message.includes(what), e.message);
  };

  async function open(agent, params = {}) {
    s.environment ??= await beta().environments.create({ name: 'workshop' });
    const session = await beta().sessions.create({ agent: agent.id, environment_id: s.environment.id, ...params });
    return { session, feed: new Feed(await beta().sessions.events.stream(session.id)) };
  }
  const outcome = (description, rubric) => ({ type: 'user.define_outcome', description, rubric: { type: 'text', content: rubric } });

  test(`${prefix}/outcome-in-two-iterations`, async () => {
    const { session, feed } = await open(await beta().agents.create({ name: 'writer', model }));
    const grades = [
      { result: 'needs_revision', explanation: 'No sources. [[say Draft two.]]' }, { result: 'satisfied', explanation: 'Sources are named.' },
    ];
    const verdicts = grades.map((g) => JSON.stringify({ ...g, nonce: randomUUID() })).join(' | ');
    const [defined] = await send(session.id, outcome('[[say Draft one.]]', `Names its sources. [[verdict ${verdicts}]]`));
    assert.match(defined.outcome_id, /^outc_01/);
    assert.ok(defined.processed_at);
    assert.equal(defined.max_iterations, 3);
    const events = (await feed.idle()).filter((e) => e.type !== 'span.outcome_evaluation_ongoing');
    const grade = ['span.outcome_evaluation_start', 'span.outcome_evaluation_end'];
    assert.deepEqual(types(events), ['user.define_outcome', ...begin, ...turn, ...grade, ...turn, ...grade, ...triple]);
    assert.deepEqual(said(events), ['Draft one.', 'Draft two.']);
    const starts = of(events, grade[0]), ends = of(events, grade[1]);
    assert.deepEqual(ends.map((e) => [e.iteration, e.result, e.explanation]), grades.map((g, i) => [i, g.result, g.explanation]));
    assert.deepEqual(ends.map((e) => [e.outcome_evaluation_start_id, e.outcome_id]), starts.map((e) => [e.id, defined.outcome_id]));
    assert.ok(ends.every((e) => e.usage.output_tokens > 0));
    const [entry] = (await beta().sessions.retrieve(session.id)).outcome_evaluations;
    assert.deepEqual([entry.outcome_id, entry.result, entry.iteration], [defined.outcome_id, 'satisfied', 1]);
    assert.ok(entry.completed_at);
    await feed.close();
  });

  test(`${prefix}/outcome-interrupted`, async () => {
    const { session, feed } = await open(await beta().agents.create({ name: 'writer', model }));
    const long = outcome('[[long 4000]] [[slow 20 ms]]', 'Is long.');
    await send(session.id, long);
    await feed.until((all) => all.some((e) => e.type === 'span.model_request_start'), 'the model to be asked');
    await refused(send(session.id, long));
    await send(session.id, { type: 'user.interrupt' });
    const end = last(await feed.idle(), 'span.outcome_evaluation_end');
    assert.deepEqual([end.result, end.outcome_evaluation_start_id], ['interrupted', '']);
    assert.equal((await beta().sessions.retrieve(session.id)).outcome_evaluations[0].result, 'interrupted');
    await feed.close();
  });

  async function team() {
    const reviewer = await beta().agents.create({ name: 'reviewer', model });
    const tester = await beta().agents.create({ name: 'tester', model, tools: [ask] });
    const agents = [reviewer.id, { type: 'agent', id: tester.id }];
    const lead = await beta().agents.create({ name: 'lead', model, multiagent: { type: 'coordinator', agents } });
    assert.deepEqual(lead.multiagent.agents.map((a) => [a.id, a.version]), [[reviewer.id, 1], [tester.id, 1]]);
    await refused(beta().agents.create({ name: 'deeper', model, multiagent: { type: 'coordinator', agents: [lead.id] } }));
    return lead;
  }
  const delegate = (tasks) => `[[tools ${tasks.map((t) => 'create_agent ' + JSON.stringify(t)).join(' | ')}]] ;; [[say Delegated.]]`;

  test(`${prefix}/coordinator-with-two-threads`, async () => {
    const { session, feed } = await open(await team());
    assert.deepEqual(session.agent.multiagent.agents.map((a) => a.name), ['reviewer', 'tester']);
    await send(session.id, message(delegate([
      { agent: 'reviewer', prompt: '[[say 1 issue at line 42.]]' },
      { agent: 'tester', prompt: '[[tool bash {"command":"make test"}]] ;; [[say 12 tests pass.]]' },
    ])));
    const first = await feed.idle(0, 'requires_action');
    const created = Object.fromEntries(of(first, 'session.thread_created').map((e) => [e.agent_name, e.session_thread_id]));
    assert.deepEqual(Object.keys(created).sort(), ['reviewer', 'tester']);
    assert.ok(of(first, 'session.thread_created').every((e) => e.workflow_run_id === null));
    assert.deepEqual(Object.fromEntries(of(first, 'agent.thread_message_sent').map((e) => [e.to_agent_name, e.to_session_thread_id])), created);
    assert.deepEqual(of(first, 'agent.thread_message_received').map((e) => [e.from_agent_name, e.content[0].text]), [['reviewer', '1 issue at line 42.']]);
    const [use, ...more] = of(first, 'agent.tool_use');
    assert.deepEqual([use.session_thread_id, use.evaluated_permission, more], [created.tester, 'ask', []]);
    assert.deepEqual(first.at(-1).stop_reason.event_ids, [use.id]);
    const threads = await collect(beta().sessions.threads.list(session.id));
    assert.deepEqual(threads.map((t) => [t.agent.name, t.parent_thread_id]), [['lead', null], ['reviewer', threads[0].id], ['tester', threads[0].id]]);
    assert.deepEqual((await collect(beta().sessions.threads.list(session.id, { limit: 1 }))).map((t) => t.id), threads.map((t) => t.id));
    const on = { session_id: session.id };
    const child = new Feed(await beta().sessions.threads.events.stream(created.tester, on));
    await send(session.id, { type: 'user.tool_confirmation', tool_use_id: use.id, result: 'allow' });
    const rest = await feed.idle(first.length);
    const answer = last(rest, 'user.tool_confirmation');
    assert.deepEqual([answer.session_thread_id, answer.tool_use_id], [created.tester, use.id]);
    const report = last(rest, 'agent.thread_message_received');
    assert.deepEqual([report.from_session_thread_id, report.from_agent_name, report.content[0].text], [created.tester, 'tester', '12 tests pass.']);
    assert.deepEqual(of(rest, 'agent.tool_result'), [], 'a child\'s results are its own');
    const own = await child.until((all) => all.some((e) => e.type === 'session.thread_status_idle'), 'the child to be idle');
    for (const type of ['user.tool_confirmation', 'agent.tool_result', 'span.model_request_end', 'agent.thread_message_sent'])
      assert.ok(last(own, type), `${type} in ${types(own)}`);
    const history = await collect(beta().sessions.threads.events.list(created.tester, on));
    assert.equal(history[0].type, 'agent.thread_message_received');
    assert.deepEqual(of(history, 'agent.tool_use').map((e) => [e.id, e.session_thread_id ?? null]), [[use.id, null]]);
    const done = await beta().sessions.threads.archive(created.reviewer, on);
    assert.equal(done.status, 'terminated');
    assert.ok(done.archived_at);
    assert.deepEqual((await collect(beta().sessions.threads.list(session.id))).map((t) => t.status), ['idle', 'terminated', 'idle']);
    await refused(beta().sessions.threads.archive(threads[0].id, on));
    await child.close();
    await feed.close();
  });

  const budget = (cents) => ({ type: 'limit', max_list_cost: { amount: String(cents), currency: 'USD' } });

  test(`${prefix}/budget-pauses-and-is-raised`, async () => {
    const stock = { type: 'custom', name: 'stock_level', description: 'd', input_schema: { type: 'object' } };
    const { session, feed } = await open(await beta().agents.create({ name: 'spender', model, tools: [stock] }), { budget: budget(10) });
    assert.deepEqual(session.budget, budget(10));
    await send(session.id, message('[[tool stock_level {"article":"nails"}]] [[usage in=1000 out=10000]] ;; [[say Done.]]'));
    const paused = await feed.idle(0, 'budget_reached');
    assert.deepEqual(types(paused).slice(-3), triple);
    assert.equal(paused.at(-3).stop_reason.type, 'budget_reached');
    assert.equal(of(paused, 'span.model_request_start').length, 1);
    assert.deepEqual(paused.at(-2).budget, budget(10));
    const cost = Number(paused.at(-2).usage.list_cost.amount);
    assert.ok(cost >= 10, String(cost));
    await refused(send(session.id, message('go on')));
    await refused(beta().sessions.update(session.id, { budget: budget(cost - 1) }), 'budget.max_list_cost must be greater than the session\'s consumed list cost');
    await beta().sessions.update(session.id, { budget: budget(cost * 100) });
    const rest = await feed.idle(paused.length);
    assert.deepEqual([last(rest, 'session.updated').budget, said(rest)], [budget(cost * 100), ['Done.']]);
    assert.equal((await beta().sessions.update(session.id, { budget: null })).budget, null);
    await refused(beta().sessions.update(session.id, { budget: budget(5) }));
    await feed.close();
  });

  // The places that the id: lines name are a stream's own; told one, it goes on from there.
  test(`${prefix}/last-event-id`, async () => {
    const { session, feed } = await open(await beta().agents.create({ name: 'resumed', model }));
    await send(session.id, message('[[say One.]]'));
    const first = await feed.idle();
    const url = `/v1/sessions/${session.id}/events/stream`;
    const replay = (await world().raw('GET', url, { headers: { 'last-event-id': '1' } })).body.pipeThrough(new TextDecoderStream()).getReader();
    let text = '';
    while ((text.match(/\n\n/g) ?? []).length < first.length - 1) text += (await replay.read()).value;
    await replay.cancel();
    const places = [...text.matchAll(/^id: (\d+)$/gm)].map((m) => m[1]);
    const again = new Feed(await beta().sessions.events.stream(session.id, {}, { headers: { 'Last-Event-ID': places[3] } }));
    await send(session.id, message('[[say Two.]]'));
    const both = [...first, ...await feed.idle(first.length)];
    const ids = both.map((e) => e.id);
    const missed = ids.slice(ids.indexOf(JSON.parse(text.split('\n').filter((l) => l.startsWith('data: '))[3].slice(6)).id) + 1);
    await again.until((all) => all.length >= missed.length, 'what was missed and what comes');
    assert.deepEqual(again.events.map((e) => e.id), missed);
    await again.close();
    await feed.close();
  });
}
