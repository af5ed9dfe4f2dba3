import { postgresLog } from '../../../src/broker/postgres/index.ts';

/** A process of its own that takes the right to append, says so, and holds it until it is killed. */
const [connectionString = '', leaseMs = ''] = process.argv.slice(2);
const log = postgresLog({ connectionString });
await log.acquireWriter({ holder: 'child', leaseMs: Number(leaseMs), signal: new AbortController().signal });
process.stdout.write('held\n');
