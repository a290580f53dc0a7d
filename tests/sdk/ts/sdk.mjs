// sdk.mjs - the packages under test and the ones that help, from where the suite installed them ($SDK_DIR).
import { createRequire } from 'node:module';
import fs from 'node:fs';
import path from 'node:path';

export const dir = process.env.SDK_DIR;
const require = createRequire(path.join(dir, 'package.json'));

export const { default: Anthropic, ...errors } = require('@anthropic-ai/sdk');
export const { betaTool } = require('@anthropic-ai/sdk/helpers/beta/json-schema');
export const { accumulateManagedAgentsEvent } = require('@anthropic-ai/sdk/lib/sessions/accumulate');
export const source = path.join(dir, 'node_modules/@anthropic-ai/sdk/src');
export const version = JSON.parse(fs.readFileSync(path.join(source, '../package.json'), 'utf8')).version;
export const typescript = () => require('typescript');
export const ajv = () => require('ajv').default ?? require('ajv');
export const generator = () => import(require.resolve('ts-json-schema-generator'));
