import { describe, expect, it } from 'vitest';
import { planSeek, seekGroup, type SeekTarget } from '../../src/consumer/seek.ts';

const ends = [
  { partition: 0, start: 10n, end: 50n },
  { partition: 1, start: 0n, end: 5n },
];
const places = [
  { partition: 0, nextOffset: 30n },
  { partition: 1, nextOffset: 5n },
];

describe('planSeek', () => {
  it.each<[string, SeekTarget, bigint, bigint]>([
    ['the earliest', 'earliest', 10n, 0n],
    ['the latest', 'latest', 50n, 5n],
    ['back', { by: -5n }, 25n, 0n],
    ['nowhere', { by: 0n }, 30n, 5n],
    ['a time', { time: new Date(0) }, 20n, 5n],
  ])('goes to %s', (_name, target, zero, one) => {
    const times = new Map([[0, 20n]]);
    expect(planSeek('t', places, ends, target, times)).toEqual([
      { partition: 0, from: 30n, to: zero },
      { partition: 1, from: 5n, to: one },
    ]);
  });

  it.each<[string, SeekTarget, object]>([
    ['below the start', { offset: 9n }, { partition: 0, offset: 9n, start: 10n, end: 50n }],
    ['beyond the end', { offset: 51n }, { partition: 0, offset: 51n }],
    ['beyond the end of another', { offset: 10n }, { partition: 1, offset: 10n, start: 0n, end: 5n }],
    ['back below 0', { by: -6n }, { partition: 1, offset: -1n }],
    ['on beyond the end', { by: 1n }, { partition: 1, offset: 6n }],
  ])('refuses a place %s', (_name, target, details) => {
    expect(() => planSeek('t', places, ends, target)).toThrow(
      expect.objectContaining({ code: 'OFFSET_OUT_OF_RANGE', details: expect.objectContaining(details) as object }),
    );
  });

  it('goes to the end behind which a record may be lost, and to no other', () => {
    expect(planSeek('t', places.slice(0, 1), ends, { offset: 50n })).toEqual([{ partition: 0, from: 30n, to: 50n }]);
  });
});

it.each([
  ['in the future', new Date(Date.now() + 3_600_000)],
  ['that is none', new Date(Number.NaN)],
])('seekGroup refuses a time %s', async (_case, time) => {
  const never = (): never => {
    throw new Error('asked');
  };
  const log = {
    capabilities: new Set<never>(),
    partitionCount: never,
    ends: never,
    offsetsAt: never,
    fetch: never,
    close: never,
  };
  await expect(
    seekGroup({ log, database: { connect: never }, group: 'g', topic: 't', to: { time } }),
  ).rejects.toMatchObject({ code: 'INVALID_OPTION' });
});
