import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { partitionName, planSync, wasMoved, type CursorRow, type Holding } from '../../src/consumer/sync-plan.ts';

const row = (changes: Partial<CursorRow> = {}): CursorRow => ({
  topic: 't',
  partition: 0,
  nextOffset: 0n,
  epoch: 1n,
  generation: 1,
  owner: null,
  wanted: null,
  opensAfter: null,
  ...changes,
});

const holding = (changes: Partial<Holding> = {}): Holding => ({
  topic: 't',
  partition: 0,
  epoch: 1n,
  generation: 1,
  revoking: false,
  drained: false,
  ...changes,
});

const alive = (...ids: string[]) => ids.map((memberId) => ({ memberId, topics: ['t'] }));

/** The plan of the member `a`. */
function plan(rows: CursorRow[], holdings: Holding[] = [], members = alive('a', 'b')) {
  return planSync({ memberId: 'a', members, rows, holdings });
}

it.each<[string, boolean, CursorRow[]]>([
  ['moved back', true, [row({ generation: 2, epoch: 3n, owner: 'b' })]],
  ['moved forward', true, [row({ epoch: 2n })]],
  ['taken by another', false, [row({ epoch: 2n, owner: 'b' })]],
  ['of a group that is gone', false, [row({ partition: 1 })]],
])('tells a lost partition that was %s from others', (_, expected, rows) => {
  expect(wasMoved(holding(), rows)).toBe(expected);
});

describe('planSync', () => {
  it('takes a free partition that it is to have', () => {
    const free = row();
    expect(plan([free], [], alive('a'))).toMatchObject({
      wanted: [{ row: free, wanted: 'a' }],
      take: [free],
      wake: [],
    });
  });

  it('leaves a free partition to the member that is to have it, and tells it', () => {
    const rows = [row({ owner: 'a', wanted: 'a' }), row({ partition: 1 })];
    expect(plan(rows, [holding()])).toMatchObject({ wanted: [{ row: rows[1], wanted: 'b' }], take: [], wake: ['b'] });
  });

  it('waits for an owner that is alive, and tells it to give the partition up', () => {
    const rows = [row({ owner: 'b', wanted: 'b' }), row({ partition: 1, owner: 'b', wanted: 'b' })];
    const step = plan(rows);
    expect(step).toMatchObject({ take: [], wake: ['b'] });
    expect(step.wanted.map(({ wanted }) => wanted)).toEqual(['a']);
  });

  it('takes a partition that was added only when the others have come to where they ended then', () => {
    const added = row({ partition: 2, opensAfter: [5n, 7n] });
    const others = (first: bigint, second: bigint): CursorRow[] => [
      row({ owner: 'a', wanted: 'a', nextOffset: first }),
      row({ partition: 1, owner: 'a', wanted: 'a', nextOffset: second }),
    ];
    const holds = [holding(), holding({ partition: 1 })];
    expect(plan([...others(5n, 6n), added], holds, alive('a')).take).toEqual([]);
    expect(plan([...others(4n, 9n), added], holds, alive('a')).take).toEqual([]);
    expect(plan([...others(5n, 7n), added], holds, alive('a')).take).toEqual([added]);
  });

  it('takes nothing while it leaves, and keeps what a static member is wanted for', () => {
    const rows = [row({ owner: 'a', wanted: 'a' }), row({ partition: 1, wanted: 'a' })];
    const drained = holding({ revoking: true, drained: true });
    const view = { memberId: 'a', isLeaving: true, members: alive('a'), rows, holdings: [drained] };
    expect(planSync(view)).toMatchObject({ wanted: [], take: [], released: [drained], release: [rows[0]] });
  });

  it('takes over at once from an owner whose lease has run out', () => {
    const rows = [row({ owner: 'gone', wanted: 'gone' })];
    expect(plan(rows, [], alive('a')).take).toEqual(rows);
  });

  it('first revokes, then releases what another is to have', () => {
    const rows = [row({ owner: 'a', wanted: 'b' })];
    const members = [...alive('b'), { memberId: 'a', topics: [] }];
    const owned = holding();
    expect(plan(rows, [owned], members)).toMatchObject({ revoke: [owned], release: [], released: [] });
    expect(plan(rows, [holding({ revoking: true })], members)).toMatchObject({ revoke: [], release: [], released: [] });
    const drained = holding({ revoking: true, drained: true });
    expect(plan(rows, [drained], members)).toMatchObject({ released: [drained], release: rows, wake: ['b'], lost: [] });
  });

  it('takes a partition anew that it has given up and is to have again', () => {
    const rows = [row({ owner: 'a', wanted: 'a' })];
    const drained = holding({ revoking: true, drained: true });
    expect(plan(rows, [drained], alive('a'))).toMatchObject({ released: [drained], take: rows, release: [] });
  });

  it.each([
    ['has a new owner', row({ owner: 'b', wanted: 'b' })],
    ['has a new epoch', row({ owner: 'a', wanted: 'a', epoch: 2n })],
    ['is of a former generation', row({ owner: 'a', wanted: 'a', generation: 2 })],
  ])('has lost a partition that %s', (_case, changed) => {
    const held = holding();
    expect(plan([changed], [held], alive('a', 'b')).lost).toEqual([held]);
  });

  it('has lost a partition whose row is gone', () => {
    const held = holding();
    expect(plan([], [held]).lost).toEqual([held]);
  });

  it('takes anew what is in its name and not in its hands', () => {
    const rows = [row({ owner: 'a', wanted: 'a' })];
    expect(plan(rows, [], alive('a')).take).toEqual(rows);
    expect(plan(rows, [], [...alive('b'), { memberId: 'a', topics: [] }])).toMatchObject({ release: rows, take: [] });
  });

  it('lets a promised partition go back to its owner when the other has left', () => {
    const rows = [row({ owner: 'a', wanted: 'b' })];
    const step = plan(rows, [holding()], alive('a'));
    expect(step).toMatchObject({ wanted: [{ row: rows[0], wanted: 'a' }], revoke: [], release: [], lost: [] });
  });

  it('does nothing where all is as it is to be', () => {
    const rows = [row({ owner: 'a', wanted: 'a' }), row({ partition: 1, owner: 'b', wanted: 'b' })];
    expect(plan(rows, [holding()])).toEqual({
      wanted: [],
      release: [],
      take: [],
      revoke: [],
      released: [],
      lost: [],
      wake: [],
    });
  });

  it('ends with even shares and never with two owners, whatever joins, leaves, dies and drains in whatever order', () => {
    const ids = ['a', 'b', 'c'];
    const steps = fc.array(
      fc.record({
        who: fc.constantFrom(...ids),
        what: fc.constantFrom('sync', 'sync', 'sync', 'drain', 'die', 'live'),
      }),
      { maxLength: 80 },
    );
    fc.assert(
      fc.property(steps, fc.integer({ min: 1, max: 7 }), (script, partitions) => {
        const world = new World(partitions);
        for (const { who, what } of script) {
          world.step(who, what);
          world.assertOneOwner();
        }
        for (let round = 0; round < 6; round += 1) {
          for (const who of ids) {
            world.step(who, 'live');
            world.step(who, 'sync');
            world.step(who, 'drain');
            world.assertOneOwner();
          }
        }
        const shares = ids.map((who) => world.owned(who)).sort((x, y) => x - y);
        expect(shares.reduce((sum, share) => sum + share, 0)).toBe(partitions);
        expect((shares[2] ?? 0) - (shares[0] ?? 0)).toBeLessThanOrEqual(1);
      }),
    );
  });
});

interface WorldHolding extends Holding {
  revoking: boolean;
  drained: boolean;
}

/** The tables of a group and its members' memories. */
class World {
  readonly #rows: { -readonly [Name in keyof CursorRow]: CursorRow[Name] }[];
  readonly #members = new Map<string, WorldHolding[]>();

  constructor(partitions: number) {
    this.#rows = Array.from({ length: partitions }, (_, partition) => ({ ...row({ partition }) }));
  }

  step(who: string, what: string): void {
    if (what === 'live' && !this.#members.has(who)) this.#members.set(who, []);
    if (what === 'die') this.#members.delete(who);
    if (what === 'sync' && this.#members.has(who)) this.#sync(who);
    if (what === 'drain') for (const held of this.#members.get(who) ?? []) held.drained = held.revoking;
  }

  owned(who: string): number {
    return this.#members.get(who)?.length ?? 0;
  }

  /** A partition is in one pair of hands at most, by the epoch that counts. */
  assertOneOwner(): void {
    for (const each of this.#rows) {
      const owners = [...this.#members.values()]
        .flat()
        .filter((held) => partitionName(held) === partitionName(each) && held.epoch === each.epoch);
      expect(owners.length).toBeLessThanOrEqual(1);
    }
  }

  #sync(who: string): void {
    const holdings = this.#members.get(who) ?? [];
    const members = [...this.#members.keys()].map((memberId) => ({ memberId, topics: ['t'] }));
    const rows = this.#rows.map((each) => ({ ...each }));
    const step = planSync<WorldHolding>({ memberId: who, members, rows, holdings });
    const find = ({ partition }: CursorRow) => this.#rows.find((each) => each.partition === partition)!;
    for (const change of step.wanted) find(change.row).wanted = change.wanted;
    for (const each of step.release) find(each).owner = null;
    for (const each of step.revoke) each.revoking = true;
    const gone = new Set([...step.lost, ...step.released]);
    const taken = step.take.map((each) => {
      const target = find(each);
      target.owner = who;
      target.epoch += 1n;
      return { ...holding({ partition: target.partition, epoch: target.epoch }) };
    });
    this.#members.set(who, [...holdings.filter((held) => !gone.has(held)), ...taken]);
  }
}
