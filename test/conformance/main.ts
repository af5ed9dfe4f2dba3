import { randomInt } from 'node:crypto';
import { messageOf } from '../../src/base/errors.ts';
import { createTestDatabase, logConformance, runConformance, type ConformanceReport } from '../../src/testing/index.ts';
import { subjects } from './subjects.ts';
import { requestOf, type ConformanceOptions } from './options.ts';

const EXIT_FAILED = 1;
const EXIT_USAGE = 2;

async function main(): Promise<number> {
  const request = requestOf(process.argv.slice(2), randomInt(1, 1_000_000));
  if ('help' in request) {
    process.stdout.write(`${request.help}\n`);
    return 0;
  }
  if ('mistake' in request) {
    process.stderr.write(`${request.mistake}\n`);
    return EXIT_USAGE;
  }
  const report = await run(request.run);
  if (request.run.json) process.stdout.write(`${JSON.stringify(report, undefined, 2)}\n`);
  return report.ok ? 0 : EXIT_FAILED;
}

async function run({ log, seed }: ConformanceOptions): Promise<ConformanceReport> {
  await using database = await createTestDatabase();
  const suite = logConformance({
    ...subjects[log](database),
    database: () => Promise.resolve({ ...database, stop: () => Promise.resolve() }),
    seed,
  });
  process.stderr.write(`${log}: ${suite.cases.length} cases, seed ${seed}\n`);
  const report = await runConformance(log, suite, (level, { name, outcome, why }) => {
    process.stderr.write(`${level}  ${outcome.padEnd(7)}  ${name}${why === undefined ? '' : `: ${why}`}\n`);
  });
  const { passed, failed, refused } = report;
  process.stderr.write(`${log}: ${passed} passed, ${failed} failed, ${refused} refused\n`);
  return report;
}

try {
  process.exitCode = await main();
} catch (error) {
  process.stderr.write(`${messageOf(error)}\n`);
  process.exitCode = EXIT_FAILED;
}
