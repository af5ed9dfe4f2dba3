import { afterAll, expect, it } from 'vitest';
import { logConformance } from '../../../src/testing/index.ts';
import { subjects } from '../../conformance/subjects.ts';

const NO_DATABASE = { connectionString: '' };
const suite = logConformance({ ...subjects.memory(NO_DATABASE), levels: [0, 4, 7] });

afterAll(() => suite.close());

const REFUSED = /cannot be seen yet|compacted topic|delayed/;

it.each(suite.cases)('level $level: $name', async ({ name, run }) => {
  const { outcome } = await run();
  expect(outcome).toBe(REFUSED.test(name) ? 'refused' : 'passed');
});
