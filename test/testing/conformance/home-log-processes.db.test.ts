import { afterAll, expect, it } from 'vitest';
import { logConformance } from '../../../src/testing/index.ts';
import { subjects } from '../../conformance/subjects.ts';
import { openPool } from '../../servers/pool.ts';
import { createTestDatabase } from '../../servers/test-database.ts';

const database = await createTestDatabase();
const { connectionString } = database;
const pool = openPool({ connectionString });
const suite = logConformance({
  ...subjects.postgres(database),
  database: () => Promise.resolve({ pool, connectionString, stop: () => pool.end() }),
});

afterAll(async () => {
  await suite.close();
  await database[Symbol.asyncDispose]();
});

const cases = suite.cases.filter(({ name }) => name.includes('process'));

it.each(cases)('level $level: $name', { timeout: 180_000 }, async ({ run }) => {
  expect((await run()).outcome).toBe('passed');
});

it('has them for members, for what feeds the log, and for two at once', () => {
  expect(cases.map(({ level }) => level)).toEqual([2, 2, 3, 3, 3, 6, 6]);
});
