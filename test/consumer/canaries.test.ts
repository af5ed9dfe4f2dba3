import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { assign, type AssignorMember, type AssignorPartition } from '../../src/consumer/assignor.ts';
import { assignWithCanaries, canaryShare } from '../../src/consumer/canaries.ts';

const member = (memberId: string, canary = false, topics = ['t']): AssignorMember => ({ memberId, topics, canary });
const topic = (owners: (string | null)[], name = 't'): AssignorPartition[] =>
  owners.map((current, partition) => ({ topic: name, partition, current }));

describe('canaryShare', () => {
  it.each([
    [10, 0, 0],
    [10, 10, 1],
    [10, 25, 3],
    [4, 10, 1],
    [4, 99, 3],
    [4, 100, 4],
    [1, 50, 0],
    [1, 100, 1],
    [0, 50, 0],
  ])('of %i partitions at %i percent is %i', (partitions, percent, share) => {
    expect(canaryShare(partitions, percent)).toBe(share);
  });
});

describe('assignWithCanaries', () => {
  it('gives canaries their share, takes it back at 0, and moves nothing else', () => {
    const group = [member('a'), member('b'), member('c', true)];
    const before = topic(['a', 'b', 'a', 'b', 'a', 'b', 'a', 'b']);
    const during = assignWithCanaries(group, before, 25);
    expect(during.filter((owner) => owner === 'c')).toHaveLength(2);
    const moved = before.filter(({ current }, at) => current !== during[at]);
    expect(moved).toHaveLength(2);
    const after = assignWithCanaries(group, topic(during), 0);
    expect(after.filter((owner) => owner === 'c')).toEqual([]);
    expect(during.filter((owner, at) => owner !== after[at])).toEqual(['c', 'c']);
  });

  it('lets one kind have all where the other is not there, or does not handle the topic', () => {
    const parts = topic(['c', 'c', null, null]);
    expect(assignWithCanaries([member('c', true)], parts, 0)).toEqual(['c', 'c', 'c', 'c']);
    expect(assignWithCanaries([member('a')], parts, 50)).toEqual(['a', 'a', 'a', 'a']);
    const apart = [member('a', false, ['t', 'u']), member('c', true, ['t', 'v'])];
    const both = [...topic([null, null]), ...topic([null], 'u'), ...topic([null], 'v')];
    expect(assignWithCanaries(apart, both, 50)).toEqual(['c', 'a', 'a', 'c']);
    expect(assignWithCanaries(apart, both, 0)).toEqual(['a', 'a', 'a', 'c']);
    expect(assignWithCanaries([], both, 50)).toEqual([null, null, null, null]);
  });

  const ids = ['a', 'b', 'c', 'd'];
  const anyMembers = fc.uniqueArray(
    fc.record({
      memberId: fc.constantFrom(...ids),
      canary: fc.boolean(),
      topics: fc.subarray(['t', 'u'], { minLength: 1 }),
    }),
    { selector: ({ memberId }) => memberId, maxLength: 4 },
  );
  const anyPartitions = fc
    .tuple(
      fc.array(fc.constantFrom(...ids, 'gone', null), { maxLength: 8 }),
      fc.array(fc.constantFrom(...ids, null), { maxLength: 4 }),
    )
    .map(([t, u]) => [...topic(t), ...topic(u, 'u')]);

  it('gives every partition an owner that can have it, canaries exactly their share, and changes nothing the second time', () => {
    fc.assert(
      fc.property(anyMembers, anyPartitions, fc.integer({ min: 0, max: 100 }), (members, partitions, percent) => {
        const owners = assignWithCanaries(members, partitions, percent);
        const byId = new Map(members.map((each) => [each.memberId, each]));
        const can = (canary: boolean, name: string): boolean =>
          members.some((each) => each.canary === canary && each.topics.includes(name));
        let [both, ofCanaries] = [0, 0];
        partitions.forEach(({ topic: name }, at) => {
          const owner = byId.get(owners[at] ?? '');
          expect(owner !== undefined).toBe(can(true, name) || can(false, name));
          if (owner !== undefined) expect(owner.topics).toContain(name);
          if (!can(true, name) || !can(false, name)) return;
          both += 1;
          if (owner?.canary === true) ofCanaries += 1;
        });
        expect(ofCanaries).toBe(canaryShare(both, percent));
        const settled = partitions.map((each, at) => ({ ...each, current: owners[at] ?? null }));
        expect(assignWithCanaries(members, settled, percent)).toEqual(owners);
        expect(assignWithCanaries([...members].reverse(), partitions, percent)).toEqual(owners);
      }),
    );
  });

  it('is as the plain one where nobody is a canary', () => {
    fc.assert(
      fc.property(anyMembers, anyPartitions, fc.integer({ min: 0, max: 100 }), (some, partitions, percent) => {
        const members = some.map(({ memberId, topics }) => ({ memberId, topics }));
        expect(assignWithCanaries(members, partitions, percent)).toEqual(assign(members, partitions));
      }),
    );
  });
});
