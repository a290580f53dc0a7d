// surface.mjs - what the SDK can ask, read from its own sources: for each method of each resource class the
// verb, the path and the type of the answer. Nothing here is written by hand, so nothing can drift.
import fs from 'node:fs';
import path from 'node:path';
import { source, typescript } from './sdk.mjs';

const VERBS = { get: 'GET', post: 'POST', put: 'PUT', patch: 'PATCH', delete: 'DELETE', getAPIList: 'GET' };

export function sources(root = path.join(source, 'resources')) {
  return fs.readdirSync(root, { recursive: true }).filter((f) => f.endsWith('.ts')).sort().map((f) => path.join(root, f));
}

// [{ name, file, verb, path, kind, answer }]; name: "beta.sessions.events.list" (the client's, in its own case);
// kind: json, list, stream, binary or none; answer: the type node (with .file), or null. `loose` counts calls
// whose path is not a literal.
export function operations() {
  const ts = typescript();
  const found = [];
  for (const file of sources()) {
    const text = fs.readFileSync(file, 'utf8');
    const tree = ts.createSourceFile(file, text, ts.ScriptTarget.ES2022, true);
    for (const c of tree.statements.filter(ts.isClassDeclaration))
      for (const m of c.members.filter(ts.isMethodDeclaration)) if (m.body) found.push(...callsOf(ts, file, c, m));
  }
  return found;
}

function callsOf(ts, file, cls, method) {
  const found = [];
  const visit = (n) => {
    if (ts.isCallExpression(n) && ts.isPropertyAccessExpression(n.expression)) {
      const verb = VERBS[n.expression.name.text];
      if (verb && /^(this\._client|client)$/.test(n.expression.expression.getText()) && n.arguments.length) {
        const route = routeOf(ts, n.arguments[0]);
        found.push({
          name: nameOf(file, method.name.getText()), file, verb, path: route,
          ...answerOf(ts, method.type, file),
        });
      }
    }
    ts.forEachChild(n, visit);
  };
  visit(method.body);
  return found;
}

// "/v1/agents/{}": parameters keep only their place, and 0.x's "?beta=true" is none of the path. null: not a literal.
function routeOf(ts, n) {
  return literalOf(ts, n)?.replace(/\?beta=true$/, '') ?? null;
}

function literalOf(ts, n) {
  if (ts.isStringLiteral(n) || ts.isNoSubstitutionTemplateLiteral(n)) return n.text;
  if (!ts.isTaggedTemplateExpression(n) || n.tag.getText() !== 'path') return null;
  const t = n.template;
  if (ts.isNoSubstitutionTemplateLiteral(t)) return t.text;
  return t.head.text + t.templateSpans.map((s) => '{}' + s.literal.text).join('');
}

function nameOf(file, method) {
  const parts = path.relative(path.join(source, 'resources'), file).replace(/\.ts$/, '').split(path.sep);
  if (parts.length > 1 && parts.at(-1) === parts.at(-2)) parts.pop();
  return [...parts, method].map((s) => s.replace(/-([a-z])/g, (_, c) => c.toUpperCase())).join('.');
}

function answerOf(ts, type, file) {
  if (!type || !ts.isTypeReferenceNode(type)) return { kind: 'none', answer: null };
  const of = type.typeName.getText(), args = type.typeArguments ?? [];
  if (of === 'PagePromise') return { kind: 'list', answer: { file, page: args[0], item: args[1] } };
  if (of !== 'APIPromise') return { kind: 'none', answer: null };
  const t = args[0];
  if (ts.isTypeReferenceNode(t) && t.typeName.getText() === 'Stream') return { kind: 'stream', answer: { file, item: t.typeArguments[0] } };
  if (t.getText() === 'Response') return { kind: 'binary', answer: null };
  if (t.getText() === 'void') return { kind: 'none', answer: null };
  return { kind: 'json', answer: { file, item: t } };
}
