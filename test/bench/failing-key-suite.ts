import { interleave } from './interleave.ts';
import { pacedByTailrace, WARM_UP_SECONDS, type Pace } from './paced.ts';
import { quantile, row, type Row } from './report.ts';
import { size, type Bench, type Suite } from './suite.ts';

/**
 * What a key that fails for ever costs the others: the ratio of their p99 with and without it, in turns. Its records are
 * parked, and tried again five times a second.
 */
export const failingKeySuite: Suite = { one: oneOfThousand };

const KEYS = 1_000;

async function oneOfThousand(bench: Bench): Promise<Row[]> {
  const pace: Pace = { perSecond: 200, seconds: size(bench, 20, 4), keys: KEYS };
  const { rounds, ...others } = await interleave(bench, 'failing key', {
    without: () => pacedByTailrace(bench, pace),
    beside: () => pacedByTailrace(bench, { ...pace, failing: [0] }),
  });
  const p99 = (which: 'without' | 'beside'): number[] => rounds.map((one) => quantile(one[which].warm, 0.99));
  const without = p99('without');
  return [
    row({
      suite: 'failing-key',
      workload: `${pace.perSecond} messages/s of ${KEYS} keys for ${pace.seconds} s after ${WARM_UP_SECONDS} s of warm-up, one key failing for ever, in turns with none`,
      figure: 'commit to effect committed, p99 of the other keys, divided by that without',
      unit: '×',
      bar: { atMost: 2 },
      samples: p99('beside').map((ms, n) => ms / (without[n] ?? NaN)),
      details: { besideMs: p99('beside'), withoutMs: without, ...others },
    }),
  ];
}
