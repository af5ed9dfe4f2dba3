import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { assign, type AssignorMember, type AssignorPartition } from '../../src/consumer/assignor.ts';

const members = (...ids: string[]): AssignorMember[] => ids.map((memberId) => ({ memberId, topics: ['t'] }));
const topic = (owners: (string | null)[], name = 't'): AssignorPartition[] =>
  owners.map((current, partition) => ({ topic: name, partition, current }));

function sizes(owners: readonly (string | null)[], ids: readonly string[]): number[] {
  return ids.map((id) => owners.filter((owner) => owner === id).length);
}

function moves(partitions: readonly AssignorPartition[], owners: readonly (string | null)[]): number {
  return partitions.filter(({ current }, at) => current !== owners[at]).length;
}

const sumOfSquares = (shares: readonly number[]): number => shares.reduce((sum, share) => sum + share * share, 0);

/** The least sum of squares of the shares, by trying every assignment. */
function bestByTrial(group: readonly AssignorMember[], partitions: readonly AssignorPartition[]): number {
  const shares = group.map(() => 0);
  const place = (at: number): number => {
    const partition = partitions[at];
    if (partition === undefined) return sumOfSquares(shares);
    const able = group.flatMap(({ topics }, index) => (topics.includes(partition.topic) ? [index] : []));
    if (able.length === 0) return place(at + 1);
    return Math.min(
      ...able.map((index) => {
        shares[index] = (shares[index] ?? 0) + 1;
        const sum = place(at + 1);
        shares[index] = (shares[index] ?? 0) - 1;
        return sum;
      }),
    );
  };
  return place(0);
}

const ids = ['a', 'b', 'c', 'd', 'e'];
const anyOwner = fc.constantFrom(...ids, 'gone', null);

describe('assign', () => {
  it('gives nothing away where there is nobody', () => {
    expect(assign([], topic(['a', null]))).toEqual([null, null]);
  });

  it('gives a topic only to members that handle it', () => {
    const group = [
      { memberId: 'a', topics: ['x'] },
      { memberId: 'b', topics: ['y'] },
    ];
    const partitions = [...topic([null, null, 'b'], 'x'), ...topic(['a'], 'y'), ...topic([null], 'z')];
    expect(assign(group, partitions)).toEqual(['a', 'a', 'a', 'b', null]);
  });

  it('moves nothing when the shares are even', () => {
    const partitions = topic(['a', 'b', 'a', 'b', 'b']);
    expect(assign(members('a', 'b'), partitions)).toEqual(['a', 'b', 'a', 'b', 'b']);
  });

  it('moves only what a member that joins is to get', () => {
    const partitions = topic(['a', 'a', 'a', 'a', 'b', 'b', 'b', 'b']);
    const owners = assign(members('a', 'b', 'c'), partitions);
    expect(moves(partitions, owners)).toBe(2);
    expect(sizes(owners, ['a', 'b', 'c']).sort()).toEqual([2, 3, 3]);
  });

  it('moves only what a member that left had', () => {
    const partitions = topic(['a', 'b', 'c', 'a', 'b', 'c']);
    const owners = assign(members('a', 'b'), partitions);
    expect(owners.filter((_, at) => partitions[at]?.current !== 'c')).toEqual(['a', 'b', 'a', 'b']);
    expect(sizes(owners, ['a', 'b'])).toEqual([3, 3]);
  });

  it('frees a place along a chain of members', () => {
    const group = [
      { memberId: 'a', topics: ['x'] },
      { memberId: 'b', topics: ['x', 'y'] },
      { memberId: 'c', topics: ['y'] },
    ];
    const partitions = [...topic(['a', 'a', 'b'], 'x'), ...topic(['b'], 'y')];
    expect(sizes(assign(group, partitions), ['a', 'b', 'c'])).toEqual([2, 1, 1]);
    const more = [...topic(['a', 'a', 'a'], 'x'), ...topic(['b', 'b'], 'y')];
    expect(sizes(assign(group, more), ['a', 'b', 'c'])).toEqual([2, 2, 1]);
  });

  it('shares as evenly as can be and moves as little as can be when all handle the same', () => {
    fc.assert(
      fc.property(fc.subarray(ids, { minLength: 1 }), fc.array(anyOwner, { maxLength: 40 }), (live, current) => {
        const partitions = topic(current);
        const owners = assign(members(...live), partitions);
        const shares = sizes(owners, live);
        expect(owners.every((owner) => owner !== null && live.includes(owner))).toBe(true);
        expect(Math.max(...shares) - Math.min(...shares)).toBeLessThanOrEqual(1);

        const kept = sizes(current, live).sort((a, b) => b - a);
        const floor = Math.floor(current.length / live.length);
        const larger = current.length % live.length;
        const surplus = kept.map((have, at) => Math.max(0, have - floor - (at < larger ? 1 : 0)));
        const homeless = current.filter((owner) => owner === null || !live.includes(owner)).length;
        expect(moves(partitions, owners)).toBe(homeless + surplus.reduce((sum, each) => sum + each, 0));
      }),
    );
  });

  it('finds the evenest shares that the topics of the members allow', () => {
    const group = fc.uniqueArray(
      fc.record({ memberId: fc.constantFrom('a', 'b', 'c'), topics: fc.subarray(['x', 'y', 'z']) }),
      { selector: ({ memberId }) => memberId, minLength: 1 },
    );
    const parts = fc.array(fc.record({ topic: fc.constantFrom('x', 'y', 'z'), current: anyOwner }), { maxLength: 7 });
    fc.assert(
      fc.property(group, parts, (live, chosen) => {
        const partitions = chosen.map((each, partition) => ({ ...each, partition }));
        const owners = assign(live, partitions);
        owners.forEach((owner, at) => {
          const able = live.filter(({ topics }) => topics.includes(partitions[at]?.topic ?? ''));
          expect(able.length === 0 ? [null] : able.map(({ memberId }) => memberId)).toContain(owner);
        });
        expect(sumOfSquares(sizes(owners, ids))).toBe(bestByTrial(live, partitions));
      }),
    );
  });

  it('is settled: asked again with its own answer it moves nothing, in any order of the members', () => {
    const group = fc.uniqueArray(
      fc.record({ memberId: fc.constantFrom(...ids), topics: fc.subarray(['x', 'y', 'z']) }),
      { selector: ({ memberId }) => memberId },
    );
    const parts = fc.array(fc.record({ topic: fc.constantFrom('x', 'y', 'z'), current: anyOwner }), { maxLength: 30 });
    fc.assert(
      fc.property(group, parts, (live, chosen) => {
        const partitions = chosen.map((each, partition) => ({ ...each, partition }));
        const owners = assign(live, partitions);
        expect(assign([...live].reverse(), partitions)).toEqual(owners);
        const settled = partitions.map((each, at) => ({ ...each, current: owners[at] ?? null }));
        expect(assign(live, settled)).toEqual(owners);
      }),
    );
  });
});
