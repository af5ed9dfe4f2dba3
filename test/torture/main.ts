import { randomInt } from 'node:crypto';
import { messageOf } from '../../src/base/errors.ts';
import { requestOf } from './options.ts';
import { describe, type TortureReport } from './report.ts';
import { torture } from './torture.ts';

const EXIT_FAILED = 1;
const EXIT_USAGE = 2;

/** A first signal ends the run in good order, a second one at once. */
function stopSignal(): AbortSignal {
  const stopping = new AbortController();
  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(name, () => {
      if (stopping.signal.aborted) process.exit(EXIT_FAILED);
      stopping.abort(new Error(`Stopped by ${name}.`));
    });
  }
  return stopping.signal;
}

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
  const { run } = request;
  const startedMs = performance.now();
  const say = (text: string): void => {
    const seconds = ((performance.now() - startedMs) / 1_000).toFixed(1).padStart(6);
    process.stderr.write(`${seconds}  ${text}\n`);
  };
  const report = await torture({ ...run, say, stop: stopSignal() });
  process.stderr.write(`${describe(report)}\n`);
  if (run.json) process.stdout.write(`${JSON.stringify(report, undefined, 2)}\n`);
  return succeeded(report) ? 0 : EXIT_FAILED;
}

function succeeded({ sabotage, caught, ok }: TortureReport): boolean {
  return sabotage === null ? ok : caught === true;
}

try {
  process.exitCode = await main();
} catch (error) {
  process.stderr.write(`${messageOf(error)}\n`);
  process.exitCode = EXIT_FAILED;
}
