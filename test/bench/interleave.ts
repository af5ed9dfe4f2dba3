import type { Bench } from './suite.ts';
import { withNeighbours } from './neighbours.ts';

/** Beyond this share of the machine that others use, a round says more of them than of us. */
const NEIGHBOURS_BELOW = 0.08;

/** What was measured, and how far others were in the way. */
export interface Rounds<T> {
  readonly rounds: readonly T[];
  /** The share of the machine that others used, in each of them. */
  readonly neighbours: readonly number[];
  /** Rounds that were measured again since others used too much. */
  readonly repeated: number;
}

type Measured<C> = { readonly [Name in keyof C]: C[Name] extends (round: number) => Promise<infer T> ? T : never };

/**
 * Measures contenders in turns, so that what changes on the machine meets all of them: in each round each once, and another one first
 * in each. A round in which others used much of the machine is measured again, as often as there are rounds in all;
 * after that it counts as it is, and `neighbours` says so.
 */
export async function interleave<C extends Readonly<Record<string, (round: number) => Promise<unknown>>>>(
  { rounds: wanted, say }: Pick<Bench, 'rounds' | 'say'>,
  what: string,
  contenders: C,
): Promise<Rounds<Measured<C>>> {
  const rounds: Measured<C>[] = [];
  const neighbours: number[] = [];
  let repeated = 0;
  for (let n = 0; rounds.length < wanted; n += 1) {
    say(`${what}: round ${rounds.length + 1} of ${wanted}`);
    const { result, share } = await withNeighbours(() => oneRound(contenders, n));
    if (share > NEIGHBOURS_BELOW && repeated < wanted) {
      repeated += 1;
      say(`${what}: again, since others used ${Math.round(share * 100)} % of the machine`);
      continue;
    }
    rounds.push(result);
    neighbours.push(Math.round(share * 1000) / 1000);
  }
  return { rounds, neighbours, repeated };
}

async function oneRound<C extends Readonly<Record<string, (round: number) => Promise<unknown>>>>(
  contenders: C,
  n: number,
): Promise<Measured<C>> {
  const names = Object.keys(contenders);
  const results: Record<string, unknown> = {};
  for (const [at] of names.entries()) {
    const name = names[(at + n) % names.length] ?? '';
    results[name] = await contenders[name]?.(n);
  }
  return results as Measured<C>;
}
