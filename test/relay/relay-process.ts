import { postgresLog } from '../../src/broker/postgres/index.ts';
import { createRelay, walSource } from '../../src/relay/index.ts';

/** A relay in a process of its own, to be stopped and killed. Prints the messages of its log as lines. */
const [connectionString = '', leaseMs = ''] = process.argv.slice(2);
const print = (_fields: object, message: string): void => void process.stdout.write(`${message}\n`);
const logger = { debug: print, info: print, warn: print, error: print };
const log = postgresLog({ connectionString, logger });
const source = walSource({ connectionString, logger });
await createRelay({ source, log, logger, holder: 'child', leaseMs: Number(leaseMs) }).start();
