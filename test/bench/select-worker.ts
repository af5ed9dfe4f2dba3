import pg from 'pg';

/** Reads the outbox from its beginning, a page at a time, the columns that a relay needs, and prints how long that took. */
const { connectionString, pageRows } = JSON.parse(process.argv[2] ?? '') as {
  connectionString: string;
  pageRows: number;
};

const client = new pg.Client({ connectionString });
await client.connect();
const startedAt = performance.now();
let rows = 0;
for (let last = 0; ;) {
  const page = await client.query<[string, ...unknown[]]>({
    name: 'page',
    text: 'select position, topic, key from tailrace.outbox where position > $1 order by position limit $2',
    values: [last, pageRows],
    rowMode: 'array',
  });
  rows += page.rows.length;
  if (page.rows.length === 0) break;
  last = Number(page.rows.at(-1)?.[0]);
}
process.stdout.write(`${JSON.stringify({ seconds: (performance.now() - startedAt) / 1000, rows })}\n`);
await client.end();
