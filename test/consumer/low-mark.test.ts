import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { LowMark } from '../../src/consumer/low-mark.ts';

describe('LowMark', () => {
  it('stands at its start before anything was taken in', () => {
    expect(new LowMark(7n).value).toBe(7n);
  });

  it('waits for the first unfinished offset, then passes all that finished behind it', () => {
    const mark = new LowMark(0n);
    for (const offset of [0n, 1n, 2n, 3n]) mark.open(offset);
    mark.finish(1n);
    mark.finish(2n);
    expect(mark.value).toBe(0n);
    mark.finish(0n);
    expect(mark.value).toBe(3n);
    mark.finish(3n);
    expect(mark.value).toBe(4n);
  });

  it('refuses an offset that does not ascend', () => {
    const mark = new LowMark(5n);
    expect(() => mark.open(4n)).toThrow(RangeError);
    mark.open(5n);
    expect(() => mark.open(5n)).toThrow(RangeError);
  });

  it('is the first unfinished offset, whatever the order of finishing and whatever gaps there are', () => {
    const steps = fc.array(fc.record({ gap: fc.integer({ min: 0, max: 3 }), finish: fc.array(fc.nat(30)) }));
    fc.assert(
      fc.property(fc.bigInt(0n, 2n ** 60n), steps, (start, script) => {
        const mark = new LowMark(start);
        const opened: bigint[] = [];
        const finished = new Set<bigint>();
        let end = start;
        for (const { gap, finish } of script) {
          const offset = end + BigInt(gap);
          mark.open(offset);
          opened.push(offset);
          end = offset + 1n;
          for (const index of finish) {
            const chosen = opened[index];
            if (chosen === undefined) continue;
            finished.add(chosen);
            mark.finish(chosen);
          }
          const before = mark.value;
          expect(mark.value).toBe(opened.find((each) => !finished.has(each)) ?? end);
          expect(mark.value >= before).toBe(true);
          expect(mark.end).toBe(end);
        }
      }),
    );
  });
});
