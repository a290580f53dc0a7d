// schema.mjs - JSON Schemas of every answer, made now from the SDK's own types: a file of type aliases (one for
// each operation of surface.mjs) is written beside the installed packages, ts-json-schema-generator turns it
// into schemas, ajv checks values. Fields that the types do not have are errors, but for our own namespace
// (names that begin with moonrig_ or moonrig.).
import fs from 'node:fs';
import path from 'node:path';
import { ajv, dir, generator, source, typescript, version } from './sdk.mjs';
import { operations } from './surface.mjs';

const EXTENSION = '^moonrig[._]';

// From a file that an earlier process of the same run wrote, or made now.
export async function schemas(from) {
  if (from) {
    const { all, routes, error } = JSON.parse(fs.readFileSync(from, 'utf8'));
    return new Schemas(all, new Map(routes), error);
  }
  const ops = operations().filter((o) => o.answer && !/(^|\.)organization\./.test(o.name));
  const names = new Map(), lines = [];
  const alias = (text) => {
    if (!names.has(text)) {
      names.set(text, 'T' + names.size);
      lines.push(`export type ${names.get(text)} = ${text};`);
    }
    return names.get(text);
  };
  const writer = new TypeWriter();
  const byRoute = new Map();
  for (const o of ops) {
    const route = `${o.verb} ${o.path}`;
    const item = writer.text(o.answer.item, o.answer.file);
    const entry = { kind: o.kind, name: o.name, type: alias(o.kind === 'list' ? writer.page(o.answer, item) : item) };
    // The beta classes have what the plain ones have and more (a file's scope); both are served by one path.
    if (!byRoute.has(route) || o.name.startsWith('beta.')) byRoute.set(route, entry);
  }
  // The envelope as the SDK's error class reads it; its ErrorResponse lacks the newer of its own ErrorTypes, and
  // those lack the documented kind of a 413, and in 0.x that of a 409.
  const kinds = writer.ref(path.join(source, 'resources/shared.ts'), 'ErrorType');
  const error = alias(`{ type: 'error'; request_id: string; error: { type: ${kinds} | 'request_too_large' | 'conflict_error'; message: string; `
    + 'details?: { error_code?: string; [k: string]: unknown } } }');
  const file = path.join(dir, 'answers.ts');
  fs.writeFileSync(file, writer.imports() + lines.join('\n') + '\n');
  return new Schemas(await generate(file), byRoute, error);
}

async function generate(file) {
  const { createGenerator } = await generator();
  const all = createGenerator({
    path: file, type: '*', skipTypeCheck: true, additionalProperties: version.startsWith('0.'), expose: 'all', topRef: true,
    jsDoc: 'none', encodeRefs: false, tsconfig: path.join(source, 'tsconfig.json'),
  }).createSchema('*');
  for (const [name, def] of Object.entries(all.definitions)) all.definitions[name] = soften(def, all.definitions);
  return all;
}

// Lets our own namespace in; unions of objects that differ in `type` become discriminated ones, so that an
// error names the field that is wrong and not ten alternatives.
function soften(s, defs) {
  if (Array.isArray(s)) return s.map((x) => soften(x, defs));
  if (!s || typeof s !== 'object') return s;
  const out = Object.fromEntries(Object.entries(s).map(([k, v]) => [k, soften(v, defs)]));
  if (out.additionalProperties === false) out.patternProperties = { [EXTENSION]: {} };
  if (Array.isArray(out.anyOf)) {
    const objects = out.anyOf.filter((b) => tags(b, defs));
    const rest = out.anyOf.filter((b) => !tags(b, defs));
    const all = objects.flatMap((b) => tags(b, defs));
    if (objects.length > 1 && new Set(all).size === all.length) {
      const union = {
        type: 'object', required: ['type'], discriminator: { propertyName: 'type' },
        oneOf: objects.flatMap((b) => leaves(b, defs)),
      };
      if (!rest.length) {
        delete out.anyOf;
        Object.assign(out, union);
      } else out.anyOf = [...rest, union];
    }
  }
  return out;
}

const resolve = (s, defs) => (s.$ref ? defs[s.$ref.replace('#/definitions/', '')] : s);

function leaves(s, defs) {
  const r = resolve(s, defs);
  const inner = r.anyOf ?? r.oneOf;
  return inner ? inner.flatMap((b) => leaves(b, defs)) : [s];
}

// The values of `type` of an object or of a union of objects; null when there is none.
function tags(s, defs) {
  const r = resolve(s, defs);
  if (!r) return null;
  const inner = r.anyOf ?? r.oneOf;
  if (inner) {
    const each = inner.map((b) => tags(b, defs));
    return each.every(Boolean) ? each.flat() : null;
  }
  const t = r.properties?.type;
  if (r.type !== 'object' || !t || !r.required?.includes('type')) return null;
  return t.const !== undefined ? [t.const] : (t.enum ?? null);
}

export class Schemas {
  constructor(all, byRoute, error) {
    this.all = all;
    this.byRoute = byRoute;
    this.error = error;
    const Ajv = ajv();
    this.ajv = new Ajv({ strict: false, allErrors: true, discriminator: true, verbose: true });
    this.ajv.addSchema(all, 'sdk');
    this.routes = [...byRoute].map(([route, entry]) => {
      const [verb, p] = route.split(' ');
      const literals = p.split('/').filter((s) => s !== '{}').length;
      return { verb, entry, literals, re: new RegExp('^' + p.replaceAll('{}', '[^/]+') + '$') };
    }).sort((a, b) => b.literals - a.literals);
  }

  save(file) {
    fs.writeFileSync(file, JSON.stringify({ all: this.all, routes: [...this.byRoute], error: this.error }));
  }

  // What the SDK says that this request is answered with; undefined: the SDK has no such operation.
  route(verb, pathname) {
    return this.routes.find((r) => r.verb === verb && r.re.test(pathname))?.entry;
  }

  // [] or what is wrong, a line each.
  check(type, value) {
    const fn = this.ajv.getSchema(`sdk#/definitions/${type}`);
    if (!fn) throw new Error(`no schema for ${type}`);
    return fn(value) ? [] : explain(fn.errors);
  }
}

function explain(errors) {
  const out = errors.filter((e) => !['oneOf', 'if'].includes(e.keyword)).map((e) => {
    const extra = e.keyword === 'additionalProperties' ? ` (${e.params.additionalProperty})`
      : e.keyword === 'const' || e.keyword === 'enum' ? ` (${JSON.stringify(e.params.allowedValue ?? e.params.allowedValues)})` : '';
    return `${e.instancePath || '/'}: ${e.message}${extra}; it is ${JSON.stringify(e.data)?.slice(0, 160)}`;
  });
  return [...new Set(out)].slice(0, 12);
}

// Writes type nodes of the SDK's files so that they mean the same in another file.
class TypeWriter {
  modules = new Map();
  scopes = new Map();

  ref(file, name) {
    if (!this.modules.has(file)) this.modules.set(file, 'M' + this.modules.size);
    return `${this.modules.get(file)}.${name}`;
  }

  imports() {
    const rel = (f) => './' + path.relative(dir, f).replace(/\.ts$/, '');
    return [...this.modules].map(([f, m]) => `import type * as ${m} from ${JSON.stringify(rel(f))};\n`).join('');
  }

  // The page of a list: its own *Response interface in core/pagination.
  page(answer, item) {
    const ts = typescript();
    const pagination = path.join(source, 'core/pagination.ts');
    let node = answer.page, file = answer.file;
    for (let i = 0; i < 4; i++) { // BetaXPageCursor = PageCursor<BetaX>, perhaps re-exported
      const [f, name] = this.find(node.typeName, file);
      if (f === pagination) return `${this.ref(pagination, name + 'Response')}<${item}>`;
      const decl = this.declarations(f).get(name);
      if (!decl || !ts.isTypeAliasDeclaration(decl)) throw new Error(`what is the page ${name} of ${f}?`);
      [node, file] = [decl.type, f];
    }
    throw new Error(`no page class for ${answer.page.getText()}`);
  }

  text(node, file) {
    const ts = typescript();
    if (ts.isTypeReferenceNode(node)) {
      const [f, name] = this.find(node.typeName, file);
      const args = node.typeArguments?.length ? `<${node.typeArguments.map((a) => this.text(a, file)).join(', ')}>` : '';
      return (f ? this.ref(f, name) : name) + args;
    }
    if (ts.isUnionTypeNode(node)) return node.types.map((t) => this.text(t, file)).join(' | ');
    if (ts.isArrayTypeNode(node)) return `Array<${this.text(node.elementType, file)}>`;
    return node.getText();
  }

  // [file, name] of an entity name as seen in a file; file null: a global.
  find(entity, file) {
    const ts = typescript();
    const parts = entity.getText().split('.');
    const scope = this.scope(file);
    if (scope.namespaces.has(parts[0])) return [scope.namespaces.get(parts[0]), parts.slice(1).join('.')];
    if (scope.named.has(parts[0])) return scope.named.get(parts[0]);
    return this.declarations(file).has(parts[0]) ? [file, parts[0]] : [null, parts.join('.')];
  }

  declarations(file) {
    return this.scope(file).declarations;
  }

  scope(file) {
    if (this.scopes.has(file)) return this.scopes.get(file);
    const ts = typescript();
    const tree = ts.createSourceFile(file, fs.readFileSync(file, 'utf8'), ts.ScriptTarget.ES2022, true);
    const s = { namespaces: new Map(), named: new Map(), declarations: new Map() };
    for (const n of tree.statements) {
      if (ts.isImportDeclaration(n) && n.importClause) {
        const at = path.resolve(path.dirname(file), n.moduleSpecifier.text);
        const target = [at + '.ts', path.join(at, 'index.ts')].find((f) => fs.existsSync(f));
        const b = n.importClause.namedBindings;
        if (b && ts.isNamespaceImport(b)) s.namespaces.set(b.name.text, target);
        else if (b) for (const e of b.elements) s.named.set(e.name.text, [target, (e.propertyName ?? e.name).text]);
      } else if (n.name) s.declarations.set(n.name.text, n);
    }
    this.scopes.set(file, s);
    return s;
  }
}
