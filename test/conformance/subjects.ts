import { memoryLog } from '../../src/broker/memory/index.ts';
import {
  targetLogSubject,
  type LogConformanceOptions,
  type LogSubject,
  type TestDatabase,
} from '../../src/testing/index.ts';
import type { ConformanceOptions } from './options.ts';
import { homeLogSubject } from './home-log.ts';

/** What the suite needs for each log. */
export const subjects: Readonly<
  Record<ConformanceOptions['log'], (database: Pick<TestDatabase, 'connectionString'>) => LogConformanceOptions>
> = {
  memory: () => ({
    create: () => {
      const log = memoryLog();
      const removeBefore: LogSubject['removeBefore'] = (position) => log.removeBefore(position);
      return Promise.resolve(targetLogSubject(log, { removeBefore, compact: (topic) => log.compact(topic) }));
    },
    capabilities: ['time-seek', 'compaction'],
  }),
  postgres: ({ connectionString }) => ({
    create: () => Promise.resolve(homeLogSubject(connectionString)),
    capabilities: ['time-seek', 'compaction'],
  }),
};
