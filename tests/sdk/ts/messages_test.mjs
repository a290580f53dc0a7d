// messages_test.mjs - the Messages API through the same client and base URL: create, stream, tools and count_tokens,
// passed through to a service of that API and translated for one of chat completions, unmodified SDK on top.
import { assert, test } from './kit.mjs';
import { errors } from './sdk.mjs';

const tools = [{ name: 'pay', description: 'Pays', input_schema: { type: 'object', properties: { n: { type: 'integer' } } } }];

export function messages(world, prefix = 'messages') {
  const ask = (model, content, more = {}) => ({ model, max_tokens: 100, messages: [{ role: 'user', content }], ...more });
  // What is passed through is the upstream's, request ids too, and the SDK has no one type for it: not recorded.
  const client = () => world().connect({ fetch: globalThis.fetch });

  for (const [name, model] of [['through', 'claude-opus-4-7'], ['translated', 'gpt-5.2']]) {
    test(`${prefix}/${name}-create`, async () => {
      const m = await client().messages.create(ask(model, '[[say hello from {model}]]', { system: 'Be kind.' }));
      assert.deepEqual(m.content, [{ type: 'text', text: `hello from ${model}` }]);
      assert.deepEqual([m.type, m.role, m.model, m.stop_reason], ['message', 'assistant', model, 'end_turn']);
      assert.ok(m.id.startsWith('msg_') && m.usage.input_tokens + (m.usage.cache_read_input_tokens ?? 0) > 0 && m.usage.output_tokens > 0);
      assert.match(m._request_id, /^req_/);
    });

    test(`${prefix}/${name}-stream`, async () => {
      const said = [];
      const stream = client().messages.stream(ask(model, '[[say Gr\u00fc\u00dfe an alle]] [[tools pay {"n":3} | pay {}]]', { tools }));
      stream.on('text', (delta) => said.push(delta));
      const m = await stream.finalMessage();
      assert.ok(said.length > 1);
      assert.equal(said.join(''), 'Gr\u00fc\u00dfe an alle');
      assert.deepEqual(m.content.map((b) => [b.type, b.input ?? b.text]), [['text', 'Gr\u00fc\u00dfe an alle'], ['tool_use', { n: 3 }], ['tool_use', {}]]);
      assert.equal(m.stop_reason, 'tool_use');
      assert.ok(m.usage.output_tokens > 0);
      const next = await client().messages.create(ask(model, '', {
        tools,
        messages: [
          { role: 'user', content: 'pay' },
          { role: 'assistant', content: m.content.map(({ type, id, name: n, input, text }) => (type === 'text' ? { type, text } : { type, id, name: n, input })) },
          { role: 'user', content: m.content.filter((b) => b.type === 'tool_use').map((b) => ({ type: 'tool_result', tool_use_id: b.id, content: `paid ${b.input.n ?? 0}` })) },
        ],
      }));
      assert.equal(next.content[0].text, 'Result: paid 3\npaid 0');
    });

    test(`${prefix}/${name}-raw-events`, async () => {
      const seen = [];
      for await (const e of await client().messages.create(ask(model, '[[long 40]]', { stream: true }))) seen.push(e.type);
      assert.deepEqual([seen[0], seen[1], seen.at(-2), seen.at(-1)], ['message_start', 'content_block_start', 'message_delta', 'message_stop']);
      assert.ok(seen.filter((t) => t === 'content_block_delta').length > 10);
    });

    test(`${prefix}/${name}-errors`, async () => {
      const once = client().withOptions({ maxRetries: 0 });
      await assert.rejects(once.messages.create(ask(model, '[[error 400]]')), errors.BadRequestError);
      await assert.rejects(once.messages.create(ask(model, '[[error 529]] again')), (e) => e.status === 529 && e.error.error.type === 'overloaded_error');
      const m = await client().messages.create(ask(model, `[[error 529 x2]] [[say third time]] ${prefix}`)); // the SDK's own retries
      assert.equal(m.content[0].text, 'third time');
    });

    test(`${prefix}/${name}-abort`, async () => {
      const stream = client().messages.stream(ask(model, '[[slow 20 ms]] [[long 2000]]'));
      for await (const e of stream) if (e.type === 'content_block_delta') break;
      stream.abort();
      await assert.rejects(stream.finalMessage(), errors.APIUserAbortError);
    });
  }

  test(`${prefix}/beta-and-count-tokens`, async () => {
    const m = await client().beta.messages.create({ ...ask('claude-opus-4-7', '[[say beta]]'), betas: ['some-beta-2026-01-01'] });
    assert.equal(m.content[0].text, 'beta');
    const newest = (await world().asked()).at(-1);
    assert.ok(newest.headers['anthropic-beta'].split(',').includes('some-beta-2026-01-01'));
    assert.equal(newest.headers['x-api-key'].startsWith('sk-upstream'), true);
    assert.ok((await client().messages.countTokens({ model: 'claude-opus-4-7', messages: [{ role: 'user', content: 'how many' }] })).input_tokens > 0);
    assert.ok((await world().client.beta.messages.countTokens({ model: 'claude-opus-4-7', messages: [{ role: 'user', content: 'how many' }] })).input_tokens > 0);
    await assert.rejects(client().messages.countTokens({ model: 'gpt-5.2', messages: [{ role: 'user', content: 'how many' }] }),
      (e) => e instanceof errors.BadRequestError && /cannot count tokens/.test(e.message));
    await assert.rejects(client().messages.create(ask('no-such-model', 'hi')), errors.NotFoundError);
  });
}
