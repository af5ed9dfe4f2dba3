import { runConformanceProcess } from '../../src/testing/index.ts';
import { homeLogSubject } from './home-log.ts';

// What the suite starts beside itself: a process with the same log.
const [connectionString = ''] = process.argv.slice(2);
runConformanceProcess(process, () => Promise.resolve(homeLogSubject(connectionString)));
