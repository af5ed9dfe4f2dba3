import { postgresLog } from '../../src/broker/postgres/index.ts';
import { append, positionsOf } from './appended.ts';
import { payload, withDatabase, PAYLOAD_BYTES } from './backlog.ts';
import { interleave } from './interleave.ts';
import { row, type Row } from './report.ts';
import { size, type Bench, type Suite } from './suite.ts';

/** What it costs that the records of a topic lie far apart in the outbox. */
export const fetchSuite: Suite = { sparse };

const RECORDS = 1_000;

function sparse(bench: Bench): Promise<Row[]> {
  const messages = size(bench, 1_000_000, 200_000);
  return withOutbox(
    bench,
    'bench_all',
    messages,
    (n) => `case when ${n} >= 0 then 'rare' end`,
    async (all) =>
      withOutbox(
        bench,
        'bench_sparse',
        messages,
        (n) => `case when ${n} % 100 = 0 then 'rare' else 'common' end`,
        async (thin) => {
          const records = messages / 100;
          for (const at of [all, thin]) await time(at, records); // what is read is in memory, and the statements are known
          const { rounds, ...others } = await interleave(bench, 'fetch', {
            whole: () => time(all, records),
            part: () => time(thin, records),
          });
          return [
            row({
              suite: 'fetch',
              workload: `${records} records of ${PAYLOAD_BYTES} bytes, ${RECORDS} at a time, of a topic that is 1 % of an outbox of ${messages} messages`,
              figure: 'time against a topic that is all of it',
              unit: '×',
              bar: { atMost: 3 },
              samples: rounds.map(({ whole, part }) => part / whole),
              details: {
                allMsPerFetch: rounds.map(({ whole }) => whole),
                sparseMsPerFetch: rounds.map(({ part }) => part),
                ...others,
              },
            }),
          ];
        },
      ),
  );
}

function withOutbox<T>(
  { server, say }: Bench,
  name: string,
  messages: number,
  topic: (n: string) => string,
  use: (connectionString: string) => Promise<T>,
): Promise<T> {
  return withDatabase(server.connectionString, name, async (connectionString, client) => {
    say(`fetch: writing ${messages} messages`);
    await client.query(
      `insert into tailrace.outbox (message_id, topic, key, type, payload)
       select gen_random_uuid(), ${topic('n')}, 'order-' || n % 1000, 'OrderPlaced', $1::json from generate_series(1, $2::int) n`,
      [payload(), messages],
    );
    await client.query('vacuum analyze tailrace.outbox');
    await append(connectionString, 'rare', 1, (await positionsOf(client, 'rare')).slice(0, messages / 100));
    return use(connectionString);
  });
}

/** Milliseconds of a fetch, on average over all of the records. */
async function time(connectionString: string, records: number): Promise<number> {
  const log = postgresLog({ connectionString });
  await log.ends('rare'); // connects
  const startedAt = performance.now();
  let fetches = 0;
  for (let offset = 0n; offset < records; fetches += 1) {
    const got = await log.fetch([{ topic: 'rare', partition: 0, offset }], {
      maxRecords: RECORDS,
      maxBytes: 10_000_000,
    });
    offset += BigInt(got.length);
    if (got.length === 0) throw new Error(`A fetch at offset ${offset} gave nothing, of ${records} records.`);
  }
  const ms = (performance.now() - startedAt) / fetches;
  await log.close();
  return Math.round(ms * 100) / 100;
}
