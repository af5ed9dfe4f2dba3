import { afterAll, expect, it } from 'vitest';
import { logConformance } from '../../../src/testing/index.ts';
import { subjects } from '../../conformance/subjects.ts';
import { createTestDatabase } from '../../servers/test-database.ts';

const database = await createTestDatabase();
const suite = logConformance({ ...subjects.postgres(database), levels: [0, 4, 7] });

afterAll(async () => {
  await suite.close();
  await database[Symbol.asyncDispose]();
});

const REFUSED = /delayed/;

it.each(suite.cases)('level $level: $name', async ({ name, run }) => {
  const { outcome } = await run();
  expect(outcome).toBe(REFUSED.test(name) ? 'refused' : 'passed');
});
