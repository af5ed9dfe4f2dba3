import { createInterface } from 'node:readline';
import pg from 'pg';
import { postgresLog } from '../../src/broker/postgres/index.ts';
import { createConsumer, type Consumer } from '../../src/consumer/index.ts';
import { defineEvent } from '../../src/index.ts';

/**
 * Eight members of a group, without effects, in a process that is there before anything is measured: what the start of a
 * process costs is not ours. A line `restless` on stdin lets one leave and join every 300 ms; `quiet` ends that.
 */
const { connectionString } = JSON.parse(process.argv[2] ?? '') as { connectionString: string };

const MEMBERS = 8;
const EVERY_MS = 300;
const Ordered = defineEvent<{ n: number }>('Ordered', { topic: 'orders' });
const log = postgresLog({ connectionString });
const database = new pg.Pool({ connectionString, max: 3 * MEMBERS });

async function join(): Promise<Consumer> {
  const consumer = createConsumer({ log, group: 'restless', database, concurrency: 2, startFrom: 'latest' });
  consumer.on(Ordered, () => undefined);
  await consumer.start();
  return consumer;
}

const members = await Promise.all(Array.from({ length: MEMBERS }, join));
process.stdout.write(`${JSON.stringify({ members: members.length })}\n`);
const state = { isRestless: false, isEnding: false };
createInterface({ input: process.stdin })
  .on('line', (line) => {
    state.isRestless = line === 'restless';
    process.stdout.write(`${JSON.stringify(state)}\n`);
  })
  .on('close', () => {
    state.isEnding = true;
  });
while (!state.isEnding) {
  await new Promise((resolve) => setTimeout(resolve, EVERY_MS));
  if (!state.isRestless) continue;
  await members.shift()?.stop();
  members.push(await join());
}
await Promise.all(members.map((member) => member.stop()));
await log.close();
await database.end();
