import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { startWithin, type Segment } from '../../../src/broker/postgres/maintenance/retention.ts';

const segments = (...sizes: number[]): Segment[] =>
  sizes.map((bytes, n) => ({ base: BigInt(10 * n), next: BigInt(10 * n + 10), bytes }));

describe('retention by size', () => {
  it.each<[string, Segment[], number, bigint | undefined]>([
    ['leaves what is within it', segments(40, 40), 100, undefined],
    ['leaves a segment that is needed to fill it', segments(60, 60), 100, undefined],
    ['removes what is not', segments(60, 60, 60), 100, 10n],
    ['removes several', segments(60, 60, 60, 60, 60), 100, 30n],
    ['keeps the last', segments(500), 100, undefined],
    ['has nothing to do where nothing was measured', [], 100, undefined],
  ])('%s', (_what, found, keep, start) => {
    expect(startWithin(found, keep)).toBe(start);
  });

  it('keeps at least what it says, and less than a segment more', () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 0, max: 1_000 })), fc.integer({ min: 1, max: 5_000 }), (sizes, keep) => {
        const all = segments(...sizes);
        const start = startWithin(all, keep) ?? 0n;
        const kept = all.filter(({ base }) => base >= start);
        const bytes = kept.reduce((sum, segment) => sum + segment.bytes, 0);
        const total = sizes.reduce((sum, size) => sum + size, 0);
        expect(bytes).toBeGreaterThanOrEqual(Math.min(keep, total));
        if (kept.length > 0) expect(bytes - kept[0]!.bytes).toBeLessThan(Math.max(keep, 1));
      }),
    );
  });
});
