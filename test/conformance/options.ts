import { parseArgs } from 'node:util';

/** Which log is tested, and how. */
export interface ConformanceOptions {
  readonly log: 'postgres' | 'memory';
  readonly json: boolean;
  readonly seed: number;
}

/** What the command line asks for. */
export type Request = { readonly run: ConformanceOptions } | { readonly help: string } | { readonly mistake: string };

const HELP = `Usage: npm run conformance -- --log postgres|memory [--json] [--seed n]

Runs the conformance suite of tailrace/testing against a log, on a Postgres server of its own.

  --log postgres|memory   the log
  --json                  prints one JSON document on stdout
  --seed n                repeats what a run did at random

Example: npm run conformance -- --log memory --json`;

/** Reads the command line. `randomSeed` is taken where no seed is given. */
export function requestOf(args: readonly string[], randomSeed: number): Request {
  try {
    const { values } = parseArgs({
      args: [...args],
      options: {
        log: { type: 'string' },
        json: { type: 'boolean', default: false },
        seed: { type: 'string', default: String(randomSeed) },
        help: { type: 'boolean', default: false },
      },
    });
    if (values.help) return { help: HELP };
    const { log, json } = values;
    const seed = Number(values.seed);
    if (log !== 'postgres' && log !== 'memory')
      return { mistake: `--log is ${log ?? 'missing'}; expected postgres or memory.` };
    if (!Number.isSafeInteger(seed)) return { mistake: `--seed is ${values.seed}; expected a whole number.` };
    return { run: { log, json, seed } };
  } catch (error) {
    return { mistake: (error as Error).message };
  }
}
