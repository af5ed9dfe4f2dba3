import { once } from 'node:events';
import pg from 'pg';
import {
  createReplicationFullConcurrencyController,
  DatabaseSetup,
  getDisabledLogger,
  initializeReplicationMessageListener,
  type ReplicationListenerConfig,
} from 'pg-transactional-outbox';

/**
 * The replication listener of pg-transactional-outbox, as its documentation says is fastest: messages at once without order,
 * no protection against poisonous messages or too many attempts, a sink that does nothing. Without messages it makes the
 * table and the slot instead.
 */
const { connectionString, messages } = JSON.parse(process.argv[2] ?? '') as {
  connectionString: string;
  messages: number;
};

const dbPublication = 'bench_peer';
const dbReplicationSlot = 'bench_peer';
const report = (fields: object): void => {
  process.stdout.write(`${JSON.stringify(fields)}\n`);
};

async function setUp(): Promise<void> {
  const client = new pg.Client({ connectionString });
  await client.connect();
  await client.query(
    DatabaseSetup.dropAndCreateTable({ outboxOrInbox: 'outbox', schema: 'public', table: 'outbox' } as never),
  );
  await client.query(`create publication ${dbPublication} for table public.outbox with (publish = 'insert')`);
  await client.query(`select pg_create_logical_replication_slot($1, 'pgoutput')`, [dbReplicationSlot]);
  await client.end();
}

async function listen(): Promise<void> {
  const all = Promise.withResolvers<undefined>();
  let handled = 0;
  const config: ReplicationListenerConfig = {
    outboxOrInbox: 'outbox',
    dbListenerConfig: { connectionString },
    settings: {
      dbSchema: 'public',
      dbTable: 'outbox',
      dbPublication,
      dbReplicationSlot,
      enableMaxAttemptsProtection: false,
      enablePoisonousMessageProtection: false,
    },
  };
  const startedAt = performance.now();
  const cpu = process.cpuUsage();
  const [shutdown] = initializeReplicationMessageListener(
    config,
    {
      handle: () => {
        if ((handled += 1) === messages) all.resolve(undefined);
        return Promise.resolve();
      },
    },
    getDisabledLogger(),
    {
      concurrencyStrategy: createReplicationFullConcurrencyController(),
      messageProcessingTimeoutStrategy: () => 600_000,
    },
  );
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
