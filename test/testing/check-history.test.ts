import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { checkHistory, type AnomalyKind } from '../../src/testing/history/check-history.ts';
import type { HistoryEvent, PollEvent, ReadValue } from '../../src/testing/history/history.ts';

/** What a made-up log does: each number decides who does what next. */
interface Script {
  readonly steps: readonly number[];
}

const scripts = fc.record<Script>({ steps: fc.array(fc.nat(1_000_000), { minLength: 40, maxLength: 120 }) });

/** The history of a log without fault: two partitions, writers, readers that seek, and a group whose members come and go. */
function cleanHistory({ steps }: Script): HistoryEvent[] {
  const partitions = ['orders/0', 'orders/1'];
  const logs = new Map(partitions.map((partition) => [partition, [] as string[]]));
  const places = new Map<string, bigint>();
  const stored = new Map<string, bigint>();
  const history: HistoryEvent[] = [];
  let values = 0;
  const append = (partition: string, count: number, kind: number): void => {
    const log = logs.get(partition) ?? [];
    const offset = BigInt(log.length);
    const fresh = Array.from({ length: count }, () => `v${(values += 1)}`);
    const process = `writer ${kind % 3}`;
    if (kind === 0) return void history.push({ op: 'append', process, partition, values: fresh, outcome: 'fail' });
    const isLost = kind === 1; // nobody knows, and it did not happen
    if (!isLost) log.push(...fresh);
    if (kind <= 2) return void history.push({ op: 'append', process, partition, values: fresh, outcome: 'info' });
    const known = kind % 2 === 0 ? { offset } : {};
    history.push({ op: 'append', process, partition, values: fresh, outcome: 'ok', ...known });
  };
  const recordsFrom = (partition: string, from: bigint, count: number): ReadValue[] =>
    (logs.get(partition) ?? [])
      .slice(Number(from), Number(from) + count)
      .map((value, n) => ({ partition, offset: from + BigInt(n), value }));
  const poll = (process: string, partition: string, count: number): void => {
    const place = `${process} ${partition}`;
    const records = recordsFrom(partition, places.get(place) ?? 0n, count);
    places.set(place, (places.get(place) ?? 0n) + BigInt(records.length));
    history.push({ op: 'poll', process, records });
  };
  const handOver = (partition: string, to: string, isStored: boolean): void => {
    const former = stored.get(partition) ?? 0n;
    const reached = [...places].filter(([name]) => name.startsWith('member') && name.endsWith(partition));
    const offset = reached.reduce((most, [, at]) => (at > most ? at : most), former);
    const commit = { op: 'commit', process: to, group: 'billing', partition, offset } as const;
    history.push({ ...commit, outcome: isStored ? 'ok' : 'info' });
    if (isStored) stored.set(partition, offset);
    const next = isStored ? offset : former;
    places.set(`${to} ${partition}`, next);
    history.push({ op: 'assign', process: to, group: 'billing', partition, offset: next });
  };
  for (const step of steps) {
    const partition = partitions[step % 2] ?? '';
    const what = (step >> 1) % 5;
    const amount = ((step >> 5) % 5) + 1;
    if (what <= 1) append(partition, amount, (step >> 9) % 12);
    if (what === 2) poll(`reader ${(step >> 9) % 2}`, partition, amount);
    if (what === 3) {
      const process = `reader ${(step >> 9) % 2}`;
      const offset = BigInt((step >> 11) % ((logs.get(partition)?.length ?? 0) + 1));
      places.set(`${process} ${partition}`, offset);
      history.push({ op: 'seek', process, partition, offset });
    }
    if (what === 4) handOver(partition, `member ${(step >> 9) % 2}`, (step >> 11) % 3 > 0);
    if (what === 4) poll(`member ${(step >> 9) % 2}`, partition, amount);
  }
  for (const partition of partitions) {
    append(partition, 3, 4);
    const process = 'last reader';
    history.push({ op: 'seek', process, partition, offset: 0n });
    history.push({ op: 'poll', process, records: recordsFrom(partition, 0n, 1_000) });
    history.push({ op: 'final-read', partition, records: recordsFrom(partition, 0n, 1_000) });
  }
  return history;
}

type Plant = (history: HistoryEvent[], at: number) => HistoryEvent[];

/** The same history with one event changed. */
function changed(history: HistoryEvent[], at: number, change: (event: HistoryEvent) => HistoryEvent): HistoryEvent[] {
  return history.map((event, n) => (n === at ? change(event) : event));
}

const isLastRead = (event: HistoryEvent): boolean => event.op === 'poll' && event.process === 'last reader';

/** The poll of the last reader in the second partition: at least three records, all of its partition. */
function lastPoll(history: HistoryEvent[]): { at: number; records: readonly ReadValue[] } {
  const at = history.findLastIndex(isLastRead);
  return { at, records: (history[at] as PollEvent).records };
}

/** Faults, each as somebody would see it. `n` chooses among the places where it may be. */
const PLANTS: Readonly<Record<string, { readonly kind: AnomalyKind; readonly plant: Plant }>> = {
  'a record that succeeded is in no read': {
    kind: 'lost-write',
    plant: (history) => {
      const gone = 'v-gone';
      const at = history.findIndex(({ op }) => op === 'final-read');
      const append = { op: 'append', process: 'w', partition: 'orders/0', values: [gone], outcome: 'ok' } as const;
      return [...history.slice(0, at), append, ...history.slice(at)];
    },
  },
  'a record is left out by every reader, and there is no final read': {
    kind: 'lost-write',
    plant: (history) => {
      const { records } = lastPoll(history);
      const first = records[0]!;
      const without = history
        .filter(({ op }) => op !== 'final-read')
        .map((event) =>
          event.op === 'poll'
            ? { ...event, records: event.records.filter(({ value }) => value !== first.value) }
            : event,
        );
      const { partition, offset, value } = first;
      return [{ op: 'append', process: 'w', partition, values: [value], outcome: 'ok', offset }, ...without];
    },
  },
  'a record is read whose append failed': {
    kind: 'aborted-read',
    plant: (history, n) => {
      const { records } = lastPoll(history);
      const { value, partition } = records[n % records.length]!;
      const kept = history.flatMap((event): HistoryEvent[] => {
        if (event.op !== 'append') return [event];
        const values = event.values.filter((one) => one !== value);
        return values.length === event.values.length ? [event] : [];
      });
      // The other values of that append become unknown, which is not this anomaly: give them back.
      const others = history.flatMap((event) =>
        event.op === 'append' && event.values.includes(value) ? event.values.filter((one) => one !== value) : [],
      );
      const rest: HistoryEvent = { op: 'append', process: 'w', partition, values: others, outcome: 'info' };
      return [{ op: 'append', process: 'w', partition, values: [value], outcome: 'fail' }, rest, ...kept];
    },
  },
  'a record is read that nobody wrote': {
    kind: 'invented',
    plant: (history) => {
      const { at, records } = lastPoll(history);
      const { partition, offset } = records.at(-1)!;
      const ghost = { partition, offset: offset + 1n, value: 'v-ghost' };
      return changed(history, at, (event) => ({ ...(event as PollEvent), records: [...records, ghost] }));
    },
  },
  'an offset is read with another value': {
    kind: 'inconsistent-offset',
    plant: (history, n) => {
      const { at, records } = lastPoll(history);
      const place = n % records.length;
      const other = records[(place + 1) % records.length]!;
      return changed(history, at, (event) => ({
        ...(event as PollEvent),
        records: records.map((record, m) => (m === place ? { ...record, value: other.value } : record)),
      }));
    },
  },
  'a writer is told another offset than where its record is': {
    kind: 'inconsistent-offset',
    plant: (history) => {
      const { records } = lastPoll(history);
      const [first, second] = [records[0]!, records[1]!];
      const { partition, value } = second;
      const event = { op: 'append', process: 'w', partition, values: [value], outcome: 'ok', offset: first.offset };
      return [...history, event as HistoryEvent];
    },
  },
  'a record is at two offsets': {
    kind: 'duplicate',
    plant: (history, n) => {
      const { at, records } = lastPoll(history);
      const last = records.at(-1)!;
      const { value } = records[n % (records.length - 1)]!;
      const again = { ...last, offset: last.offset + 1n, value };
      return changed(history, at, (event) => ({ ...(event as PollEvent), records: [...records, again] }));
    },
  },
  'a reader passes over a record within a poll': {
    kind: 'skip',
    plant: (history, n) => {
      const { at, records } = lastPoll(history);
      const place = 1 + (n % (records.length - 2));
      return changed(history, at, (event) => ({
        ...(event as PollEvent),
        records: records.filter((_, m) => m !== place),
      }));
    },
  },
  'a reader passes over a record between polls': {
    kind: 'skip',
    plant: (history) => {
      const { at, records } = lastPoll(history);
      const poll = (part: readonly ReadValue[]): HistoryEvent => ({ ...(history[at] as PollEvent), records: part });
      return [...history.slice(0, at), poll(records.slice(0, 1)), poll(records.slice(2)), ...history.slice(at + 1)];
    },
  },
  'the final read has a hole that a reader has seen filled': {
    kind: 'skip',
    plant: (history) => {
      const at = history.findLastIndex(({ op }) => op === 'final-read');
      return changed(history, at, (event) =>
        event.op === 'final-read' ? { ...event, records: event.records.filter((_, m) => m !== 1) } : event,
      );
    },
  },
  'a reader is given two records the wrong way round': {
    kind: 'nonmonotonic-poll',
    plant: (history) => {
      const { at, records } = lastPoll(history);
      const [one, two, ...others] = records;
      return changed(history, at, (event) => ({ ...(event as PollEvent), records: [two!, one!, ...others] }));
    },
  },
  'a reader is given a record again': {
    kind: 'nonmonotonic-poll',
    plant: (history) => {
      const { at, records } = lastPoll(history);
      const again: HistoryEvent = { ...(history[at] as PollEvent), records: records.slice(-1) };
      return [...history.slice(0, at + 1), again, ...history.slice(at + 1)];
    },
  },
  'a group goes on before its place': {
    kind: 'nonmonotonic-poll',
    plant: (history) => [
      ...history,
      { op: 'commit', process: 'm', group: 'other', partition: 'orders/0', offset: 3n, outcome: 'ok' },
      { op: 'assign', process: 'm', group: 'other', partition: 'orders/0', offset: 2n },
    ],
  },
  'a group goes on beyond its place': {
    kind: 'skip',
    plant: (history) => [
      ...history,
      { op: 'assign', process: 'm', group: 'other', partition: 'orders/0', offset: 1n },
      { op: 'commit', process: 'm', group: 'other', partition: 'orders/0', offset: 2n, outcome: 'info' },
      { op: 'commit', process: 'm', group: 'other', partition: 'orders/0', offset: 4n, outcome: 'fail' },
      { op: 'assign', process: 'n', group: 'other', partition: 'orders/0', offset: 3n },
    ],
  },
};

describe('checkHistory', () => {
  it('finds nothing wrong with a history without fault', () => {
    fc.assert(
      fc.property(scripts, (script) => {
        const verdict = checkHistory(cleanHistory(script));
        expect(verdict.anomalies).toEqual([]);
        expect(verdict.ok).toBe(true);
        expect(verdict.appended).toBeGreaterThanOrEqual(6);
        expect(verdict.polled).toBeGreaterThanOrEqual(6);
      }),
    );
  });

  it.each(Object.entries(PLANTS))('finds it when %s', (_, { kind, plant }) => {
    fc.assert(
      fc.property(scripts, fc.nat(), (script, n) => {
        const history = plant(cleanHistory(script), n);
        const { ok, anomalies } = checkHistory(history);
        expect(ok).toBe(false);
        const found = anomalies.filter((anomaly) => anomaly.kind === kind);
        expect(found.length).toBeGreaterThan(0);
        const [first] = found;
        expect(first?.what).toContain(first?.partition);
        expect(first?.events.length).toBeGreaterThanOrEqual(1);
        expect(first?.events.length).toBeLessThanOrEqual(3); // a small counterexample
        for (const at of first?.events ?? []) expect(history[at]).toBeDefined();
      }),
      { numRuns: 50 },
    );
  });

  it('does not take what nobody knows for lost, nor what may still be read', () => {
    const append = { op: 'append', process: 'w', partition: 'orders/0' } as const;
    const history: HistoryEvent[] = [
      { ...append, values: ['a'], outcome: 'ok', offset: 0n },
      { ...append, values: ['b'], outcome: 'info' },
      { ...append, values: ['c'], outcome: 'ok', offset: 1n },
      { op: 'poll', process: 'r', records: [{ partition: 'orders/0', offset: 0n, value: 'a' }] },
    ];
    expect(checkHistory(history)).toEqual({ ok: true, anomalies: [], appended: 2, polled: 1 });
  });

  it('allows a hole that nobody has ever seen filled, as compaction leaves', () => {
    const records = [0n, 5n].map((offset) => ({ partition: 'orders/0', offset, value: `v${offset}` }));
    const history: HistoryEvent[] = [
      { op: 'append', process: 'w', partition: 'orders/0', values: ['v0', 'v5'], outcome: 'info' },
      { op: 'poll', process: 'r', records },
    ];
    expect(checkHistory(history).ok).toBe(true);
  });

  it('gives ten examples of a kind, not thousands', () => {
    const records = Array.from({ length: 1_000 }, (_, n) => ({ partition: 'p', offset: BigInt(n), value: `v${n}` }));
    const verdict = checkHistory([{ op: 'poll', process: 'r', records }]);
    expect(verdict.anomalies.map(({ kind }) => kind)).toEqual(Array.from({ length: 10 }, () => 'invented'));
  });
});
