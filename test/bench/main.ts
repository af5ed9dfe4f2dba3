import { parseArgs } from 'node:util';
import { startLocalServer } from '../../src/postgres/local-server.ts';
import { findPostgres } from '../servers/find-postgres.ts';
import { consumeSuite } from './consume-suite.ts';
import { costSuite } from './cost-suite.ts';
import { failingKeySuite } from './failing-key-suite.ts';
import { fetchSuite } from './fetch-suite.ts';
import { idleSuite } from './idle-suite.ts';
import { latencySuite } from './latency-suite.ts';
import { machine } from './machine.ts';
import { describe, type Row } from './report.ts';
import { scaleSuite } from './scale-suite.ts';
import { size, type Bench, type Suite } from './suite.ts';
import { memorySuite } from './memory-suite.ts';
import { pollingSuite } from './polling-suite.ts';
import { publishSuite } from './publish-suite.ts';
import { relaySuite } from './relay-suite.ts';
import { writersSuite } from './writers-suite.ts';

const SUITES: Readonly<Record<string, Suite>> = {
  relay: relaySuite,
  latency: latencySuite,
  consume: consumeSuite,
  publish: publishSuite,
  fetch: fetchSuite,
  memory: memorySuite,
  scale: scaleSuite,
  cost: costSuite,
  polling: pollingSuite,
  idle: idleSuite,
  writers: writersSuite,
  'failing-key': failingKeySuite,
};

const HELP = `npm run bench -- [options]

  --suite a,b/c  which suites, or workloads of them (default: all):
${workloadsOf(SUITES)}
  --rounds n     how often each is measured (default: 5, with --quick 1)
  --quick        smaller workloads, for a first look; the bars are the same
  --json         one JSON document on stdout, progress on stderr
  --help         this text

Example: npm run bench -- --suite relay,writers/members --json
Ends with 0 only if every figure reaches its bar. How to read them: test/bench/README.md`;

const { values } = parseArgs({
  options: {
    suite: { type: 'string', default: Object.keys(SUITES).join(',') },
    rounds: { type: 'string' },
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
  const rounds = Number(values.rounds ?? (values.quick ? 1 : 5));
  if (!(Number.isInteger(rounds) && rounds >= 1)) {
    process.stderr.write(`--rounds is ${values.rounds ?? ''}. Expected a whole number of 1 or more.\n`);
    return 2;
  }
  const unknown = values.suite.split(',').filter((name) => chosen(name).length === 0);
  if (unknown.length > 0) {
    process.stderr.write(`There is no suite ${unknown.join(', ')}. Expected one of these:\n${workloadsOf(SUITES)}\n`);
    return 2;
  }
  const { rows, seconds, machine: facts } = await run(values.suite.split(',').flatMap(chosen), rounds);
  if (values.json) process.stdout.write(`${JSON.stringify({ machine: facts, seconds, rows }, undefined, 2)}\n`);
  else for (const row of rows) process.stdout.write(`${describe(row)}\n`);
  return rows.every(({ ok }) => ok) ? 0 : 1;
}

interface Chosen {
  readonly name: string;
  readonly run: (bench: Bench) => Promise<Row[]>;
}

/** The workloads that a suite, or one of its workloads by `suite/workload`, stands for. */
function chosen(wanted: string): Chosen[] {
  const [suite = '', workload] = wanted.split('/');
  return Object.entries(SUITES[suite] ?? {})
    .filter(([name]) => workload === undefined || name === workload)
    .map(([name, measure]) => ({ name: `${suite}/${name}`, run: measure }));
}

async function run(workloads: readonly Chosen[], rounds: number): Promise<Outcome> {
  // pg_recvlogical is not among the binaries of the npm package.
  const tools = await findPostgres('15');
  if (!('binDir' in tools))
    throw new Error('The bench needs the programs of Postgres: unset TAILRACE_TEST_POSTGRES_15_URL.');
  await using server = await startLocalServer({
    settings: {
      shared_buffers: size({ isQuick: values.quick }, '1GB', '512MB'),
      max_wal_size: '16GB',
      checkpoint_timeout: '30min',
      track_commit_timestamp: true, // says when a transaction was committed, by the server's own clock
    },
  });
  const say = (text: string): void => void process.stderr.write(`${text}\n`);
  const bench: Bench = { server, toolsDir: tools.binDir, rounds, isQuick: values.quick, say };
  const seconds: Record<string, number> = {};
  const rows: Row[] = [];
  for (const { name, run: measure } of workloads) {
    const started = performance.now();
    const measured = await measure(bench);
    for (const row of measured) say(describe(row)); // a run that is cut off has told what it knew
    rows.push(...measured);
    seconds[name] = Math.round((performance.now() - started) / 1000);
  }
  return { machine: await machine(bench), seconds, rows };
}

interface Outcome {
  readonly machine: Readonly<Record<string, unknown>>;
  /** How long each workload took. */
  readonly seconds: Readonly<Record<string, number>>;
  readonly rows: readonly Row[];
}

function workloadsOf(suites: Readonly<Record<string, Suite>>): string {
  return Object.entries(suites)
    .map(([name, suite]) => `                 ${name} (${Object.keys(suite).join(', ')})`)
    .join('\n');
}

process.exitCode = await main();
