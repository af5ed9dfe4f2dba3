import { execFile } from 'node:child_process';
import { promisify } from 'node:util';

const run = promisify(execFile);

/** Runs an example as a process, from the sources, to its own end; returns what it printed. */
export async function runExample(path: string, databaseUrl?: string): Promise<string[]> {
  const env = { ...process.env, DATABASE_URL: databaseUrl };
  const { stdout } = await run(process.execPath, ['--conditions=tailrace-source', path], { env, timeout: 170_000 });
  return stdout.trimEnd().split('\n');
}

/** What every example prints. Lines that come from different keys have no order. */
export const EXPECTED: Readonly<Record<string, readonly string[]>> = {
  'quickstart.ts': [
    'an invoice over 42 for order A-1', //
    'invoices: [{"order_id":"A-1","total":42}]',
  ],
  'development.ts': ['at most 200 connections; messages in the outbox: 0'],
  'publishing.ts': [
    'migrations applied: 0',
    'orders A-1: event OrderPlaced',
    'shipping A-1: command ShipOrder',
    'orders A-3: event OrderPlaced',
    'shipping A-3: command ShipOrder',
    'orders A-4: event OrderPlaced',
    'shipping A-4: command ShipOrder',
    'shipping A-5: command ShipOrder',
  ],
  'relaying.ts': [
    'first relay: leading - second relay: standby',
    'handled A-1',
    'handled A-2',
    'first relay: stopped - second relay: leading',
  ],
  'worker.ts': ['handled A-1', 'stopping: stopping'],
  'consuming.ts': [
    'OrderPaid A-1: attempt 1, topic payments',
    'OrderPaid A-2: attempt 1, topic payments',
    'invoices: 2 - payments: 2 - parcels: 2 - labels: 1',
    'orders in the cache: 2 - in that of this process: 2 - rings: 2',
    'tailrace_consumer_dead_messages_total{group="mail"} 1',
    'dead letter of mail: OrderPlaced A-2 after 5 attempts, Error: the mail server refuses this',
    'dead letter of labels: OrderPlaced A-2 after 1 attempts, too heavy for a label',
  ],
};

/** Examples that take no other server than their own. */
export const ON_THEIR_OWN: ReadonlySet<string> = new Set(['development.ts']);

/** Examples whose lines may come in another order. */
export const UNORDERED: ReadonlySet<string> = new Set(['consuming.ts']);
