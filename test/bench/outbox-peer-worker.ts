import { once } from 'node:events';
import pg from 'pg';
import {
  createReplicationFullConcurrencyController,
  DatabaseSetup,
  getDisabledLogger,
  initializePollingMessageListener,
  initializeReplicationMessageListener,
} from 'pg-transactional-outbox';

/**
 * The replication or the polling listener of pg-transactional-outbox, as its documentation says is fastest: messages at once
 * without order, no protection against poisonous messages or too many attempts, a sink that does nothing. Without messages it
 * makes the table, and the slot or the indexes, instead.
 */
const { connectionString, messages, how } = JSON.parse(process.argv[2] ?? '') as {
  connectionString: string;
  messages: number;
  how: 'wal' | 'polling';
};

const dbPublication = 'bench_peer';
const dbReplicationSlot = 'bench_peer';
const nextMessagesName = 'next_outbox_messages';
const report = (fields: object): void => {
  process.stdout.write(`${JSON.stringify(fields)}\n`);
};

async function setUp(): Promise<void> {
  const client = new pg.Client({ connectionString });
  await client.connect();
  await client.query(
    DatabaseSetup.dropAndCreateTable({ outboxOrInbox: 'outbox', schema: 'public', table: 'outbox' } as never),
  );
  if (how === 'wal') {
    await client.query(`create publication ${dbPublication} for table public.outbox with (publish = 'insert')`);
    await client.query(`select pg_create_logical_replication_slot($1, 'pgoutput')`, [dbReplicationSlot]);
  } else {
    const table = { outboxOrInbox: 'outbox', schema: 'public', table: 'outbox', nextMessagesName } as never;
    await client.query(DatabaseSetup.createPollingFunction(table));
    await client.query(DatabaseSetup.setupPollingIndexes(table));
  }
  await client.end();
}

function start(handle: () => Promise<void>): [() => Promise<void>] {
  const settings = {
    dbSchema: 'public',
    dbTable: 'outbox',
    enableMaxAttemptsProtection: false,
    enablePoisonousMessageProtection: false,
  };
  const listener = { outboxOrInbox: 'outbox', dbListenerConfig: { connectionString } } as const;
  const messageProcessingTimeoutStrategy = (): number => 600_000;
  if (how === 'wal') {
    const config = { ...listener, settings: { ...settings, dbPublication, dbReplicationSlot } };
    const concurrencyStrategy = createReplicationFullConcurrencyController();
    const strategies = { concurrencyStrategy, messageProcessingTimeoutStrategy };
    return initializeReplicationMessageListener(config, { handle }, getDisabledLogger(), strategies);
  }
  const config = {
    ...listener,
    settings: {
      ...settings,
      nextMessagesFunctionName: nextMessagesName,
      nextMessagesBatchSize: 100,
      nextMessagesPollingIntervalInMs: 10,
    },
  };
  const strategies = { messageProcessingTimeoutStrategy, batchSizeStrategy: () => Promise.resolve(100) };
  return initializePollingMessageListener(config, { handle }, getDisabledLogger(), strategies);
}

async function listen(): Promise<void> {
  const all = Promise.withResolvers<undefined>();
  let handled = 0;
  const startedAt = performance.now();
  const cpu = process.cpuUsage();
  const [shutdown] = start(() => {
    if ((handled += 1) === messages) all.resolve(undefined);
    return Promise.resolve();
  });
  await all.promise;
  const used = process.cpuUsage(cpu);
  report({
    seconds: (performance.now() - startedAt) / 1000,
    cpuMicrosPerMessage: (used.user + used.system) / messages,
  });
  process.stdin.resume();
  await once(process.stdin, 'end');
  await shutdown();
  process.exit();
}

if (messages === 0) await setUp();
report({ ready: true });
if (messages > 0) await listen();
