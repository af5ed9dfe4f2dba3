import { afterAll, beforeAll, expect, it } from 'vitest';
import {
  createTestDatabase,
  logConformance,
  runConformance,
  type LogSubject,
  type TestDatabase,
} from '../../../src/testing/index.ts';
import { subjects } from '../../conformance/subjects.ts';

let handlers: TestDatabase;
beforeAll(async () => {
  handlers = await createTestDatabase();
});
afterAll(() => handlers.stop());

const options = {
  ...subjects.memory({ connectionString: '' }),
  database: () => Promise.resolve({ ...handlers, stop: () => Promise.resolve() }),
};
const suite = logConformance(options);
afterAll(() => suite.close());

const REFUSED = /cannot be seen yet|delayed|process/;

it.each(suite.cases)('level $level: $name', async ({ name, run }) => {
  const { outcome } = await run();
  expect(outcome).toBe(REFUSED.test(name) ? 'refused' : 'passed');
});

it('fails for a log that exchanges messages of a key', async () => {
  const create = async (): Promise<LogSubject> => {
    const subject = await options.create();
    const { log } = subject;
    const exchanging: LogSubject['log'] = {
      capabilities: log.capabilities,
      partitionCount: (topic) => log.partitionCount(topic),
      ends: (topic) => log.ends(topic),
      offsetsAt: (topic, time) => log.offsetsAt(topic, time),
      close: () => log.close(),
      fetch: async (positions, bounds) => {
        const records = await log.fetch(positions, bounds);
        const last = records.findLastIndex(({ key }) => key === records[0]?.key);
        return records.map((record, n) => {
          const other = n === 0 ? records[last] : n === last ? records[0] : record;
          return { ...(other ?? record), offset: record.offset, partition: record.partition };
        });
      },
    };
    return { ...subject, log: exchanging };
  };
  const broken = logConformance({ ...options, create, levels: [2] });
  const cases = broken.cases.filter(({ name }) => name.includes('keys run at once'));
  const report = await runConformance('exchanging', { ...broken, cases });
  expect(report).toMatchObject({ passed: 0, failed: 1, ok: false });
  expect(report.levels[0]?.cases[0]?.why).toMatch(/once and in order/);
});
