import { memoryLog } from '../../src/broker/memory/index.ts';
import { targetLogSubject, type LogConformanceOptions, type TestDatabase } from '../../src/testing/index.ts';
import type { ConformanceOptions } from './options.ts';
import { homeLogSubject } from './home-log.ts';

/** What the suite needs for each log. */
export const subjects: Readonly<
  Record<ConformanceOptions['log'], (database: Pick<TestDatabase, 'connectionString'>) => LogConformanceOptions>
> = {
  memory: () => ({
    create: () => {
      const log = memoryLog();
      return Promise.resolve(targetLogSubject(log, { removeBefore: (position) => log.removeBefore(position) }));
    },
    capabilities: ['time-seek'],
  }),
  postgres: ({ connectionString }) => ({
    create: () => Promise.resolve(homeLogSubject(connectionString)),
    capabilities: ['time-seek', 'compaction'],
  }),
};
