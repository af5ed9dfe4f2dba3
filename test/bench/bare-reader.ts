import { once } from 'node:events';
import pg from 'pg';
import { LogicalReplicationService, PgoutputPlugin, type Pgoutput } from 'pg-logical-replication';

/**
 * What is the least for an effect of each message: reads the stream of the outbox, and commits one row for every message,
 * each in a statement of its own. No log, no group, no order, and nothing is remembered. Stops when stdin ends.
 */
const { connectionString, messages, publication, slot } = JSON.parse(process.argv[2] ?? '') as {
  connectionString: string;
  messages: number;
  publication: string;
  slot: string;
};

const pool = new pg.Pool({ connectionString, max: 8 });
const service = new LogicalReplicationService({ connectionString }, { acknowledge: { auto: true, timeoutSeconds: 1 } });
let handled = 0;
const all = Promise.withResolvers<undefined>();
const started = Promise.withResolvers<undefined>();
service.on('start', () => started.resolve(undefined));
service.on('data', (_lsn: string, message: Pgoutput.Message) => {
  if (message.tag !== 'insert') return;
  const { message_id, payload } = message.new as { message_id: string; payload: { n: number } };
  void pool
    .query({
      name: 'effect',
      text: 'insert into effect (n, message_id) values ($1, $2)',
      values: [payload.n, message_id],
    })
    .then(() => {
      if ((handled += 1) === messages) all.resolve(undefined);
    });
});
void service.subscribe(new PgoutputPlugin({ protoVersion: 1, publicationNames: [publication] }), slot);
await started.promise;
process.stdout.write(`${JSON.stringify({ started: true })}\n`);
await all.promise;
process.stdout.write(`${JSON.stringify({ handled })}\n`);
process.stdin.resume();
await once(process.stdin, 'end');
await service.stop();
await pool.end();
