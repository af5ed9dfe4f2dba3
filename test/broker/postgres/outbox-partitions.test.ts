import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { planPartitions, type OutboxPartition } from '../../../src/broker/postgres/maintenance/outbox-partitions.ts';
import { neighbours, stretches } from '../../../src/broker/postgres/maintenance/packing.ts';

const partition = (n: number, more: Partial<OutboxPartition> = {}): OutboxPartition => ({
  ...{ name: `outbox_${n}`, low: `${n}`, high: `${n + 10}`, state: 'attached', sealedMs: undefined },
  ...more,
});

describe('the plan for partitions of the outbox', () => {
  it.each<[string, OutboxPartition[], string]>([
    ['leaves what is being written', [partition(11)], 'none'],
    ['seals what is full', [partition(1), partition(11)], 'seal outbox_1'],
    ['keeps what was sealed of late', [partition(1, { sealedMs: 99 }), partition(11)], 'none'],
    ['lets go of what was sealed long ago', [partition(1, { sealedMs: 100 }), partition(11)], 'leave outbox_1'],
    [
      'ends a detach before all else',
      [partition(1), partition(5, { state: 'detaching', sealedMs: 100 })],
      'finalize outbox_5',
    ],
    [
      'ends a detach before it drops another one, which may not be to be had',
      [partition(1, { state: 'detached', sealedMs: 100 }), partition(11, { state: 'detaching', sealedMs: 100 })],
      'finalize outbox_11',
    ],
    ['drops what is detached', [partition(1), partition(5, { state: 'detached', sealedMs: 0 })], 'drop outbox_5'],
    ['forgets what is gone', [partition(1), partition(5, { state: 'gone', sealedMs: 0 })], 'forget outbox_5'],
    [
      'seals the next while one has to wait',
      [partition(-9, { name: 'busy', sealedMs: 100 }), partition(1)],
      'seal outbox_1',
    ],
    ['has nothing to do without partitions', [], 'none'],
  ])('%s', (_what, partitions, expected) => {
    const plan = planPartitions(partitions, { lastPosition: 12n, keepMs: 100, skip: new Set(['busy']) });
    expect(plan.step === 'none' ? 'none' : `${plan.step} ${plan.partition.name}`).toBe(expected);
  });

  it('never seals a partition that may still get a position', () => {
    for (const lastPosition of [0n, 1n, 9n]) {
      const plan = planPartitions([partition(1)], { lastPosition, keepMs: 0, skip: new Set() });
      expect(plan).toEqual({ step: 'none' });
    }
    const full = planPartitions([partition(1)], { lastPosition: 10n, keepMs: 0, skip: new Set() });
    expect(full.step).toBe('seal');
  });
});

describe('what is packed together', () => {
  it('is within both bounds, or one message', () => {
    fc.assert(
      fc.property(fc.array(fc.nat(500)), (sizes) => {
        const counts = stretches(sizes, { records: 5, bytes: 600 });
        expect(counts.reduce((sum, count) => sum + count, 0)).toBe(sizes.length);
        let at = 0;
        for (const count of counts) {
          const bytes = sizes.slice(at, at + count).reduce((sum, size) => sum + size, 0);
          expect(count === 1 || (count <= 5 && bytes <= 600)).toBe(true);
          expect(count).toBeGreaterThan(0);
          at += count;
        }
      }),
    );
  });

  it('follows each other in one partition', () => {
    const entry = (partition: number, base: number, count: number) => ({ partition, base: `${base}`, count });
    const groups = neighbours([entry(1, 0, 3), entry(1, 3, 9), entry(1, 12, 2), entry(1, 20, 1), entry(2, 21, 1)], 10);
    expect(groups.map((group) => group.map(({ base }) => base))).toEqual([['0', '3'], ['12'], ['20'], ['21']]);
  });
});
