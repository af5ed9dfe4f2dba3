import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { check, type Evidence, type Invariant, type Verdict } from './checker.ts';
import type { Step } from './tables.ts';

/** A run in which everything went well: `keys` of so many messages each, in one partition. */
function sound(keys: readonly number[]): Evidence {
  const truth: Step[] = [];
  const longest = Math.max(0, ...keys);
  for (let n = 1; n <= longest; n++) {
    keys.forEach((messages, key) => {
      if (n <= messages) truth.push({ id: 1_000 * key + n, k: `key-${key}`, n });
    });
  }
  return {
    truth,
    attempts: { ok: truth.map(({ id }) => [id, id]), fail: [[999_999, 999_999]] },
    log: { name: 'log', steps: truth },
    effects: [
      { name: 'group single', steps: truth },
      { name: 'group batch', steps: truth },
    ],
    entries: truth.length === 0 ? [] : [{ partition: 1, base: 0, count: truth.length }],
    batches: [{ seq: 1, epoch: 1, leaseEpoch: 1 }],
    leases: [{ epoch: 1, holder: 'relay-1', atMs: 100 }],
    refused: [],
    staleEffects: [],
    poison: [{ id: 1_001, deaths: 4, attempt: 2 }],
    earlyAcknowledgements: [],
    memoryMiB: 100,
    memoryLimitMiB: 256,
    drained: true,
    collapses: [],
    stalls: [],
    dangers: [],
    server: [{ retainedWalBytes: 1_000, transactionMs: 100, answerMs: 10 }],
    retainedWalLimitBytes: 2_000,
    redelivered: 3,
    redeliveredLimit: 6,
    phantoms: [],
    undone: [],
    forbiddenPhantoms: [],
    unorderedKeys: new Set(),
    unreadKeys: new Set(),
  };
}

const RUN = sound([4, 3, 5]);
const CLEAN = { lost: 0, invented: 0, doubled: 0, reordered: 0, unseen: 0 };

function broken({ breaches }: Verdict): Invariant[] {
  return [...new Set(breaches.map(({ invariant }) => invariant))].sort();
}

/** The steps of the run with one replaced, taken away or added. */
function spliced(at: number, remove: number, ...add: Step[]): Step[] {
  return RUN.truth.toSpliced(at, remove, ...add);
}

function inLog(steps: readonly Step[]): Evidence {
  return { ...RUN, log: { name: 'log', steps } };
}

function inEffects(steps: readonly Step[]): Evidence {
  return {
    ...RUN,
    effects: [
      { name: 'group single', steps: RUN.truth },
      { name: 'group batch', steps },
    ],
  };
}

describe('the checker', () => {
  it('finds nothing in a sound run', () => {
    const verdict = check(RUN);
    expect(verdict).toMatchObject({ ...CLEAN, commits: 12, staleWritesAttempted: 0, staleWritesAccepted: 0 });
    expect(verdict.breaches).toEqual([]);
    expect(verdict.doubts).toEqual([]);
  });

  it('finds a message that the log does not hold', () => {
    const verdict = check(inLog(spliced(3, 1)));
    expect(verdict).toMatchObject({ ...CLEAN, lost: 1 });
    expect(broken(verdict)).toEqual(['I1']);
  });

  it('finds a message that a group did not handle', () => {
    const verdict = check(inEffects(spliced(11, 1)));
    expect(verdict).toMatchObject({ ...CLEAN, lost: 1, unseen: 1 });
    expect(broken(verdict)).toEqual(['I1']);
  });

  it('finds a record of a transaction that was rolled back', () => {
    const verdict = check(inLog(spliced(3, 0, { id: 999_999, k: 'key-0', n: 2 })));
    expect(verdict).toMatchObject({ ...CLEAN, invented: 1 });
    expect(broken(verdict)).toEqual(['I3']);
  });

  it('finds an effect that says something else than was committed', () => {
    const [first] = RUN.truth;
    const verdict = check(inEffects(spliced(0, 1, { ...first!, n: 7 })));
    expect(verdict).toMatchObject({ ...CLEAN, invented: 1, lost: 1, unseen: 1 });
  });

  it('finds a record that is there twice', () => {
    const verdict = check(inLog(spliced(5, 0, RUN.truth[2]!)));
    expect(verdict).toMatchObject({ ...CLEAN, doubled: 1 });
    expect(broken(verdict)).toEqual(['I2']);
  });

  it('finds an effect that is there twice', () => {
    const verdict = check(inEffects(spliced(12, 0, RUN.truth[0]!)));
    expect(verdict).toMatchObject({ ...CLEAN, doubled: 1 });
    expect(broken(verdict)).toEqual(['I2']);
  });

  it('finds two messages of a key that have changed places', () => {
    const { truth } = RUN;
    const verdict = check(inEffects([truth[3]!, truth[1]!, truth[2]!, truth[0]!, ...truth.slice(4)]));
    expect(verdict).toMatchObject({ ...CLEAN, reordered: 1 });
    expect(broken(verdict)).toEqual(['I4']);
  });

  it('does not judge the order of keys for which none is promised', () => {
    const { truth } = RUN;
    const steps = [truth[3]!, truth[1]!, truth[2]!, truth[0]!, ...truth.slice(4)];
    expect(check({ ...inLog(steps), unorderedKeys: new Set(['key-0']) })).toMatchObject(CLEAN);
  });

  it('does not miss effects of what no group reads, but records', () => {
    const unreadKeys = new Set(['key-1']);
    const read = RUN.truth.filter(({ k }) => k !== 'key-1');
    const effects = RUN.effects.map(({ name }) => ({ name, steps: read }));
    expect(check({ ...RUN, effects, unreadKeys })).toMatchObject(CLEAN);
    expect(check({ ...RUN, effects, unreadKeys, log: { name: 'log', steps: read } })).toMatchObject({ lost: 3 });
  });

  it.each([
    ['leaves offsets out', 6],
    ['gives offsets twice', 4],
  ])('finds a partition that %s', (_what, base) => {
    const entries = [
      { partition: 1, base: 0, count: 5 },
      { partition: 1, base, count: 7 },
    ];
    const verdict = check({ ...RUN, entries });
    expect(verdict.reordered).toBe(1);
    expect(broken(verdict)).toEqual(['I4']);
  });

  it('finds a stale write that was accepted, by the lease of its moment', () => {
    const verdict = check({ ...RUN, batches: [...RUN.batches, { seq: 2, epoch: 1, leaseEpoch: 2 }] });
    expect(verdict).toMatchObject({ staleWritesAttempted: 1, staleWritesAccepted: 1 });
    expect(broken(verdict)).toEqual(['I6']);
  });

  it('finds a stale write that was accepted, by the appends before it', () => {
    const batches = [2, 1].map((epoch, nth) => ({ seq: nth + 1, epoch, leaseEpoch: undefined }));
    expect(broken(check({ ...RUN, batches }))).toEqual(['I6']);
  });

  it('finds an effect that was committed in the partition of another member', () => {
    const staleEffects = [{ group: 'single', id: 1, member: 'consumer-1', owner: 'consumer-2' }];
    expect(broken(check({ ...RUN, staleEffects }))).toEqual(['I6']);
  });

  it('counts a stale write as attempted only where nothing but the fence was left to stop it', () => {
    const leases = [...RUN.leases, { epoch: 2, holder: 'relay-2', atMs: 200 }];
    const append = { holder: 'relay-1', trusted: true, atMs: 250, code: 'LEASE_LOST' };
    const attempted = (refused: Partial<typeof append>): number =>
      check({ ...RUN, leases, refused: [{ ...append, ...refused }] }).staleWritesAttempted;
    expect(attempted({})).toBe(1);
    expect(attempted({ trusted: false })).toBe(0);
    expect(attempted({ atMs: 150 })).toBe(0);
    expect(attempted({ code: 'other' })).toBe(0);
    expect(attempted({ holder: 'relay-2' })).toBe(0);
  });

  it('finds a slot that was acknowledged ahead of the durable place', () => {
    const earlyAcknowledgements = [{ confirmed: '0/2000', durable: '0/1000' }];
    expect(broken(check({ ...RUN, earlyAcknowledgements }))).toEqual(['I5']);
  });

  it('allows phantoms of a failover, but not of one with slots', () => {
    expect(check({ ...RUN, phantoms: [4_711] }).breaches).toEqual([]);
    expect(broken(check({ ...RUN, phantoms: [4_711], forbiddenPhantoms: [4_711] }))).toEqual(['I3']);
  });

  it('allows the effect of what a failover may have undone once, whatever its number, and not in the log', () => {
    const phantom: Step = { id: 4_711, k: 'key-1', n: 99 };
    const undone: Evidence['undone'] = [[4_700, 4_720]];
    const effects = inEffects([phantom, ...RUN.truth]);
    expect(broken(check(effects))).toEqual(['I3']);
    expect(check({ ...effects, undone }).breaches).toEqual([]);
    expect(broken(check({ ...inEffects([phantom, ...RUN.truth, phantom]), undone }))).toEqual(['I2']);
    expect(broken(check({ ...inLog([phantom, ...RUN.truth]), undone }))).toContain('I3');
    const rolledBack = { ok: RUN.attempts.ok, fail: [[4_711, 4_711]] as const };
    expect(broken(check({ ...effects, undone, attempts: rolledBack }))).toEqual(['I3']);
  });

  it.each([
    ['memory above the limit', { memoryMiB: 300 }, 'I7'],
    ['a relay that halted', { collapses: ['relay-1 halted'] }, 'I8'],
    ['a stall', { stalls: ['nothing moved'] }, 'I9'],
    ['a run that does not drain', { drained: false }, 'I9'],
    ['more effects done again than can have been in flight', { redelivered: 7 }, 'I10'],
    ['WAL held back', { server: [{ retainedWalBytes: 2_001, transactionMs: 0, answerMs: 0 }] }, 'I11'],
    ['an old transaction', { server: [{ retainedWalBytes: 0, transactionMs: 5_101, answerMs: 5 }] }, 'I11'],
    ['a database in danger', { dangers: ['WAL was held back'] }, 'I11'],
    ['attempts that were forgotten', { poison: [{ id: 1_001, deaths: 4, attempt: 1 }] }, 'I12'],
  ] as const)('finds %s', (_what, change, invariant) => {
    expect(broken(check({ ...RUN, ...change }))).toEqual([invariant]);
  });

  it('forgives an old transaction of a server that answers late', () => {
    const server = [{ retainedWalBytes: 0, transactionMs: 14_000, answerMs: 500 }];
    expect(broken(check({ ...RUN, server }))).toEqual([]);
  });

  it('doubts a truth that its writers contradict', () => {
    expect(check({ ...RUN, attempts: { ok: [[77_777, 77_777]], fail: [] } }).doubts).toHaveLength(1);
    expect(check({ ...RUN, attempts: { ok: [], fail: [[1, 1]] } }).doubts).toHaveLength(1);
    expect(check({ ...RUN, truth: RUN.truth.slice(1), attempts: { ok: [], fail: [] } }).doubts).toHaveLength(1);
  });
});

describe('the checker, of any run', () => {
  const runs = fc.array(fc.integer({ min: 1, max: 6 }), { minLength: 1, maxLength: 5 }).map(sound);
  const place = fc.constantFrom('log', 'single', 'batch');

  /** Changes the steps of one place. */
  function changed(run: Evidence, where: string, change: (steps: readonly Step[]) => readonly Step[]): Evidence {
    if (where === 'log') return { ...run, log: { ...run.log, steps: change(run.log.steps) } };
    const effects = run.effects.map((group) =>
      group.name.endsWith(where) ? { ...group, steps: change(group.steps) } : group,
    );
    return { ...run, effects };
  }

  it('finds nothing where there is nothing', () => {
    fc.assert(
      fc.property(runs, (run) => {
        expect(check(run)).toMatchObject(CLEAN);
      }),
    );
  });

  it('counts as many lost as were taken away', () => {
    fc.assert(
      fc.property(runs, place, fc.nat(), fc.nat(), (run, where, from, count) => {
        const first = from % run.truth.length;
        const change = (steps: readonly Step[]): Step[] => steps.toSpliced(first, 1 + (count % 5));
        const gone = run.truth.length - change(run.truth).length;
        expect(check(changed(run, where, change))).toMatchObject({ lost: gone, invented: 0, doubled: 0, reordered: 0 });
      }),
    );
  });

  it('counts as many doubled as were repeated, and calls none of them reordered', () => {
    fc.assert(
      fc.property(runs, place, fc.nat(), fc.integer({ min: 1, max: 4 }), (run, where, from, count) => {
        const again = run.truth.slice(from % run.truth.length).slice(0, count);
        const verdict = check(changed(run, where, (steps) => [...steps, ...again]));
        expect(verdict).toMatchObject({ lost: 0, invented: 0, doubled: again.length, reordered: 0 });
      }),
    );
  });

  it('finds any two messages of a key that have changed places', () => {
    fc.assert(
      fc.property(runs, place, fc.nat(), fc.nat(), (run, where, one, other) => {
        const a = run.truth[one % run.truth.length]!;
        const b = run.truth[other % run.truth.length]!;
        fc.pre(a.k === b.k && a.n !== b.n);
        const swap = (step: Step): Step => (step === a ? b : step === b ? a : step);
        const verdict = check(changed(run, where, (steps) => steps.map(swap)));
        expect(verdict.reordered).toBeGreaterThan(0);
        expect(verdict).toMatchObject({ lost: 0, invented: 0, doubled: 0 });
      }),
    );
  });

  it('leaves the order between keys free', () => {
    fc.assert(
      fc.property(runs, place, (run, where) => {
        const byKey = (steps: readonly Step[]): Step[] =>
          [...steps].sort((a, b) => a.k.localeCompare(b.k) || a.n - b.n);
        expect(check(changed(run, where, byKey))).toMatchObject(CLEAN);
      }),
    );
  });
});
