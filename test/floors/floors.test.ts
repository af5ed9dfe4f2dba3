import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { beforeAll, describe, expect, it } from 'vitest';
import { type Cruised, type FloorsReport, checkFloors } from './check-floors.ts';

type Files = Readonly<Record<string, string>>;

/** A small house in which everything is as it should be: a file in most rooms, imports down and inside. */
const SOUND: Files = {
  'src/base/errors.ts': 'export class Failure extends Error {}',
  'src/base/clock.ts': `import { Failure } from './errors.ts'; export const now = () => { throw new Failure(); };`,
  'src/message/message.ts': `import type { Failure } from '../base/errors.ts'; export interface Message { failure: Failure }`,
  'src/pgoutput/decoder.ts': `export const decode = 1;`,
  'src/postgres/lease.ts': `import { now } from '../base/clock.ts'; export const lease = now;`,
  'src/broker/log.ts': `import type { Message } from '../message/message.ts'; export interface Log { message: Message }`,
  'src/broker/postgres/index.ts': `import type { Log } from '../log.ts'; import { lease } from '../../postgres/lease.ts'; export const log = (log: Log) => [log, lease];`,
  'src/broker/memory/memory-log.ts': `import type { Log } from '../log.ts'; export const memory = (log: Log) => log;`,
  'src/source/source.ts': `export interface Source { a: 1 }`,
  'src/source/wal/wal-source.ts': `import type { Source } from '../source.ts'; export const source: Source = { a: 1 };`,
  'src/relay/relay.ts': `import { source } from '../source/wal/wal-source.ts'; export const relay = source;`,
  'src/consumer/consumer.ts': `export const consumer = 1;`,
  'src/admin/contract.ts': `export interface Status { a: 1 }`,
  'src/admin/server.ts': `import { relay } from '../relay/relay.ts'; export const server = relay;`,
  'src/daemon/daemon.ts': `import { relay } from '../relay/relay.ts'; export const daemon = relay;`,
  'src/cli/main.ts': `import { daemon } from '../daemon/daemon.ts'; export const main = daemon;`,
  'src/console/page.tsx': `import type { Status } from '../admin/contract.ts'; export const page = (status: Status) => status;`,
  'src/index.ts': `export { now } from './base/clock.ts'; export { consumer } from './consumer/consumer.ts';`,
  'test/helper.ts': `export const helper = 1;`,
};

/** Checks a copy of the sound house with some files changed or added. */
async function problemsWith(changes: Files): Promise<readonly string[]> {
  const { problems } = await checkHouse({ ...SOUND, ...changes });
  return problems;
}

async function checkHouse(files: Files, cruiseIn?: (root: string) => Promise<Cruised>): Promise<FloorsReport> {
  const root = await mkdtemp(join(tmpdir(), 'tailrace-floors-'));
  try {
    for (const [path, text] of Object.entries(files)) {
      await mkdir(join(root, dirname(path)), { recursive: true });
      await writeFile(join(root, path), text);
    }
    return await checkFloors(root, cruiseIn);
  } finally {
    await rm(root, { recursive: true });
  }
}

it('finds nothing in a sound house, and reads all of it', async () => {
  const report = await checkHouse(SOUND);
  expect(report).toEqual({ files: Object.keys(SOUND).length - 1, problems: [] });
});

it('reads every file of src', async () => {
  const { files, problems } = await checkFloors(fileURLToPath(new URL('../../', import.meta.url)));
  expect(files).toBeGreaterThan(0);
  expect(problems.filter((problem) => problem.startsWith('not read'))).toEqual([]);
});

const WAYS: Readonly<Record<string, string>> = {
  import: `import { relay } from '../relay/relay.ts'; export const used = relay;`,
  'import for its effects': `import '../relay/relay.ts';`,
  'import type': `import type { relay } from '../relay/relay.ts'; export type Used = typeof relay;`,
  'import of an inline type': `import { type relay } from '../relay/relay.ts'; export type Used = typeof relay;`,
  'import in a type': `export type Used = typeof import('../relay/relay.ts');`,
  'dynamic import': `export const used = () => import('../relay/relay.ts');`,
  'export from': `export { relay } from '../relay/relay.ts';`,
  'export all': `export * from '../relay/relay.ts';`,
  'export type from': `export type { relay } from '../relay/relay.ts';`,
};

const UP = [
  ['base', 'src/base/up.ts', '../message/message.ts'],
  ['message', 'src/message/up.ts', '../postgres/lease.ts'],
  ['pgoutput', 'src/pgoutput/up.ts', '../broker/log.ts'],
  ['postgres', 'src/postgres/up.ts', '../broker/postgres/index.ts'],
  ['broker', 'src/broker/up.ts', './postgres/index.ts'],
  ['broker/memory', 'src/broker/memory/up.ts', '../../relay/relay.ts'],
  ['source', 'src/source/wal/up.ts', '../../relay/relay.ts'],
  ['relay', 'src/relay/up.ts', '../admin/server.ts'],
  ['consumer', 'src/consumer/up.ts', '../admin/server.ts'],
  ['admin', 'src/admin/up.ts', '../daemon/daemon.ts'],
  ['integrations/nestjs', 'src/integrations/nestjs/up.ts', '../../daemon/daemon.ts'],
  ['daemon', 'src/daemon/up.ts', '../cli/main.ts'],
  ['consumer', 'src/consumer/up-to-index.ts', '../index.ts'],
  ['cli', 'src/cli/up.ts', '../index.ts'],
] as const;

const SIDEWAYS = [
  ['message', 'src/message/beside.ts', '../pgoutput/decoder.ts'],
  ['pgoutput', 'src/pgoutput/beside.ts', '../message/message.ts'],
  ['broker', 'src/broker/beside.ts', '../postgres/lease.ts'],
  ['postgres', 'src/postgres/beside.ts', '../broker/log.ts'],
  ['broker/memory', 'src/broker/memory/beside.ts', '../postgres/index.ts'],
  ['outbox', 'src/outbox/beside.ts', '../source/source.ts'],
  ['source', 'src/source/polling/beside.ts', '../../broker/postgres/index.ts'],
  ['consumer', 'src/consumer/beside.ts', '../relay/relay.ts'],
  ['testing', 'src/testing/beside.ts', '../admin/server.ts'],
] as const;

describe('a house with one import too many in each of many files', () => {
  const wayOf = (way: string): string => `src/outbox/${way.replaceAll(' ', '-')}.ts`;
  let problems: readonly string[] = [];
  beforeAll(async () => {
    problems = await problemsWith({
      ...Object.fromEntries(Object.entries(WAYS).map(([way, text]) => [wayOf(way), text])),
      ...Object.fromEntries([...UP, ...SIDEWAYS].map(([, path, target]) => [path, `import '${target}';`])),
    });
  });
  const problemsOf = (path: string): readonly string[] =>
    problems.filter((problem) => problem.includes(`: ${path} → `));

  it.each(Object.keys(WAYS))('finds one that leads up: %s', (way) => {
    const path = wayOf(way);
    expect(problemsOf(path)).toEqual([
      expect.stringMatching(/^never up: outbox: src\/outbox\/[\w-]+\.ts → src\/relay\/relay\.ts\. /),
    ]);
  });

  it.each(UP)('finds one that leads up from %s (%s)', (room, path) => {
    expect(problemsOf(path)).toEqual([expect.stringContaining(`never up: ${room}: ${path} → `)]);
  });

  it.each(SIDEWAYS)('finds one that leads sideways from %s (%s)', (room, path) => {
    expect(problemsOf(path)).toEqual([expect.stringContaining(`never sideways: ${room}: ${path} → `)]);
  });

  it('finds nothing else', () => {
    expect(problems).toHaveLength(Object.keys(WAYS).length + UP.length + SIDEWAYS.length);
  });
});

it('finds a circle inside a room, made of types alone', async () => {
  const problems = await problemsWith({
    'src/relay/one.ts': `import type { Two } from './two.ts'; export interface One { two: Two }`,
    'src/relay/two.ts': `import type { One } from './one.ts'; export interface Two { one: One }`,
  });
  expect(problems.length).toBeGreaterThan(0);
  for (const problem of problems)
    expect(problem).toMatch(/^no circle: .*one\.ts.*two\.ts|^no circle: .*two\.ts.*one\.ts/);
});

it('finds that the console knows more than the contract', async () => {
  const problems = await problemsWith({ 'src/console/page.tsx': `import '../admin/server.ts';` });
  expect(problems).toEqual([expect.stringMatching(/^console knows the contract only: /)]);
});

it('finds an import of something outside src', async () => {
  const problems = await problemsWith({
    'src/relay/relay.ts': `import '../../test/helper.ts'; export const relay = 1;`,
  });
  expect(problems).toEqual([expect.stringMatching(/^nothing outside src: /)]);
});

it('finds an import that leads nowhere', async () => {
  const problems = await problemsWith({ 'src/relay/lost.ts': `import './nowhere.ts';` });
  expect(problems).toEqual([expect.stringMatching(/^imports are found: .*nowhere/)]);
});

it.each(['src/utils/string.ts', 'src/stray.ts', 'src/integrations/other.ts', 'src/broker/unheard-of/log.ts'])(
  'finds a file that is on no floor: %s',
  async (path) => {
    const problems = await problemsWith({ [path]: 'export const a = 1;' });
    expect(problems).toEqual([expect.stringContaining(`no floor: ${path}`)]);
  },
);

it('fails when there is nothing to read', async () => {
  const nothing = await checkHouse({ 'test/helper.ts': '' });
  expect(nothing.problems).toEqual([expect.stringContaining('nothing checked')]);
});

it('fails when files were passed over', async () => {
  const readsNothing = () => Promise.resolve({ modules: [], summary: { violations: [] } });
  const report = await checkHouse(SOUND, readsNothing);
  expect(report.files).toBe(0);
  expect(report.problems).toHaveLength(Object.keys(SOUND).length - 1);
  expect(report.problems[0]).toMatch(/^not read: /);
});
