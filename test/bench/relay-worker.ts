import { once } from 'node:events';
import { postgresLog } from '../../src/broker/postgres/index.ts';
import { createRelay, pollingSource, walSource } from '../../src/relay/index.ts';

/** A relay. Reports once when it leads, and once when `messages` are in the log; stops when stdin ends. */
const {
  connectionString,
  messages,
  mode = 'wal',
} = JSON.parse(process.argv[2] ?? '') as {
  connectionString: string;
  messages: number;
  mode?: 'wal' | 'polling';
};

const report = (fields: object): void => {
  process.stdout.write(`${JSON.stringify(fields)}\n`);
};

const log = postgresLog({ connectionString });
const relay = createRelay({
  source: mode === 'wal' ? walSource({ connectionString }) : pollingSource({ connectionString }),
  log,
  logger: {
    debug: () => undefined,
    info: () => undefined,
    warn: (fields, message) => process.stderr.write(`${message} ${JSON.stringify(fields)}\n`),
    error: (fields, message) => process.stderr.write(`${message} ${JSON.stringify(fields)}\n`),
  },
});
const startedAt = performance.now();
const cpu = process.cpuUsage();
await relay.start();
while (relay.status().source?.mode !== mode) await new Promise((resolve) => setTimeout(resolve, 5));
report({ leading: true });
if (messages > 0) {
  while (relay.status().appended < messages) await new Promise((resolve) => setTimeout(resolve, 5));
  const used = process.cpuUsage(cpu);
  report({
    seconds: (performance.now() - startedAt) / 1000,
    cpuMicrosPerMessage: (used.user + used.system) / messages,
    batches: relay.status().batches,
  });
}
process.stdin.resume();
await once(process.stdin, 'end');
await relay.stop();
await log.close();
