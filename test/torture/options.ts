import { parseArgs } from 'node:util';
import { messageOf } from '../../src/base/errors.ts';
import type { PostgresVersion } from '../servers/find-postgres.ts';
import type { Fault } from './fault.ts';
import { FAULTS } from './faults/all.ts';
import { Random } from './random.ts';
import { SABOTAGE_NAMES, sabotageOf, type SabotageName } from './sabotage/sabotage.ts';
import type { TortureOptions } from './torture.ts';

const VERSIONS: readonly PostgresVersion[] = ['15', '17', '18'];
const DEFAULT_SECONDS = 60;

const HELP = `npm run torture -- [options]

  --seconds N          how long messages are written and faults injected (default: ${DEFAULT_SECONDS})
  --seed S             which faults, when and where (default: a random one, which is printed)
  --faults a,b         only these, in turns
  --suite full         every fault once: about 8 minutes
  --sabotage NAME      puts a wrong implementation in place of the right one; succeeds only if the run finds it
  --postgres V         ${VERSIONS.join(', ')} (default: 18)
  --rate N             transactions a second that the writers try (default: 450)
  --recovery-limit S   fails if a message committed after a fault takes longer to have its effect (default: no limit)
  --history FILE       keeps the history of the run there
  --json               one JSON document on stdout, progress on stderr
  --help               this text

Faults:     ${FAULTS.map(({ name }) => name).join(', ')}
Sabotages:  ${SABOTAGE_NAMES.join(', ')}

Example: npm run torture -- --seconds 60 --seed 1 --json
Ends with 0 only if every promise was kept; with --sabotage, only if it was caught. More: test/torture/README.md`;

type ParsedOptions = Omit<TortureOptions, 'say' | 'stop'> & { readonly json: boolean };

/** What was asked for: a run, this help, or something that cannot be understood. */
type Request = { readonly run: ParsedOptions } | { readonly help: string } | { readonly mistake: string };

export function requestOf(args: readonly string[], randomSeed: number): Request {
  try {
    return parse(args, randomSeed);
  } catch (error) {
    return { mistake: `${messageOf(error)}\nTry --help.` };
  }
}

function parse(args: readonly string[], randomSeed: number): Request {
  const { values } = parseArgs({
    args: [...args],
    options: {
      seconds: { type: 'string' },
      seed: { type: 'string' },
      faults: { type: 'string' },
      suite: { type: 'string' },
      sabotage: { type: 'string' },
      postgres: { type: 'string', default: '18' },
      rate: { type: 'string', default: '450' },
      'recovery-limit': { type: 'string' },
      history: { type: 'string' },
      json: { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
  });
  if (values.help) return { help: HELP };
  if (values.suite !== undefined) oneOf('suite', values.suite, ['full']);
  const isFull = values.suite === 'full';
  const sabotage = values.sabotage === undefined ? undefined : oneOf('sabotage', values.sabotage, SABOTAGE_NAMES);
  const seed = values.seed === undefined ? randomSeed : wholeNumber('seed', values.seed, 0);
  const run = {
    seed,
    seconds: isFull ? undefined : wholeNumber('seconds', values.seconds ?? String(DEFAULT_SECONDS), 5),
    faults: faultsOf(values.faults, isFull, sabotage, seed),
    sabotage,
    version: oneOf('postgres', values.postgres, VERSIONS),
    perSecond: wholeNumber('rate', values.rate, 1),
    recoveryLimitMs: recoveryLimitMsOf(values['recovery-limit']),
    historyPath: values.history,
    json: values.json,
  };
  return { run };
}

function recoveryLimitMsOf(seconds: string | undefined): number | undefined {
  return seconds === undefined ? undefined : 1_000 * wholeNumber('recovery-limit', seconds, 1);
}

function faultsOf(
  list: string | undefined,
  isFull: boolean,
  sabotage: SabotageName | undefined,
  seed: number,
): Fault[] {
  const needed: readonly string[] = sabotage === undefined ? [] : sabotageOf(sabotage).needs;
  const names = list?.split(',');
  const unknown = names?.find((name) => !FAULTS.some((fault) => fault.name === name));
  if (unknown !== undefined) throw new Error(`There is no fault ${unknown}.`);
  return FAULTS.filter(({ name, slow, bySeed }) => {
    if (needed.includes(name)) return true;
    if (names !== undefined) return names.includes(name);
    return isFull || (slow !== true && (bySeed !== true || new Random(seed, name).chance(0.5)));
  });
}

function oneOf<const Choice extends string>(option: string, given: string, choices: readonly Choice[]): Choice {
  const choice = choices.find((name) => name === given);
  if (choice === undefined) throw new Error(`--${option} is ${given}, expected ${choices.join(', ')}.`);
  return choice;
}

function wholeNumber(option: string, given: string, least: number): number {
  const number = Number(given);
  if (!Number.isSafeInteger(number) || number < least) {
    throw new Error(`--${option} is ${given}, expected a whole number of at least ${least}.`);
  }
  return number;
}
