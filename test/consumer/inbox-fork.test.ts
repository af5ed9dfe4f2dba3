import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { memoryLog, type MemoryLog } from '../../src/broker/memory/index.ts';
import { forkOf, type StoredIds } from '../../src/consumer/inbox-fork.ts';
import type { StoredId } from '../../src/consumer/inbox-table.ts';

const idOf = (n: number): string => `019a0000-0000-7000-8000-${String(n).padStart(12, '0')}`;

/** A log whose record at each offset has the number that stands there, from `start` on. */
async function logOf(numbers: readonly number[], start = 0): Promise<MemoryLog> {
  const log = memoryLog();
  await log.createTopic('t', 1);
  const records = numbers.map((n) => ({
    messageId: idOf(n),
    kind: 'event' as const,
    type: 'T',
    key: null,
    headers: {},
    payload: '{}',
    payloadBytes: null,
    occurredAt: new Date(0),
  }));
  if (records.length > 0) await log.append({ topic: 't', partition: 0, offset: 0n, records });
  await log.removeBefore({ topic: 't', partition: 0, offset: BigInt(start) });
  return log;
}

/** What is stored: numbers at offsets. */
function storedOf(numbers: readonly (readonly [offset: number, n: number])[], to: number): StoredIds {
  const ids: StoredId[] = numbers.map(([offset, n]) => ({ offset: BigInt(offset), messageId: idOf(n) }));
  return {
    topic: 't',
    partition: 0,
    to: BigInt(to),
    last: (below) => Promise.resolve(ids.filter(({ offset }) => offset < below).at(-1)),
    from: (offset, limit) => Promise.resolve(ids.filter((id) => id.offset >= offset).slice(0, limit)),
  };
}

describe('where what is stored parts from its log', () => {
  it('is the first offset that has another message, else the end of the log, else nowhere', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.record({
          common: fc.nat(30),
          ofLog: fc.nat(20),
          ofInbox: fc.nat(20),
          from: fc.nat(60),
          start: fc.nat(60),
          holes: fc.array(fc.nat(60)),
        }),
        async ({ common, ofLog, ofInbox, from, start, holes }) => {
          const shared = Array.from({ length: common }, (_, at) => at);
          const logNumbers = [...shared, ...Array.from({ length: ofLog }, (_, at) => 1_000 + at)];
          const inboxNumbers = [...shared, ...Array.from({ length: ofInbox }, (_, at) => 2_000 + at)];
          const to = inboxNumbers.length;
          const first = Math.min(from, to);
          const kept = Math.min(start, logNumbers.length);
          const rows = inboxNumbers
            .map((n, offset) => [offset, n] as const)
            // What was compacted away before it was stored. The last one is always there.
            .filter(([offset]) => offset >= first && (offset === to - 1 || !holes.includes(offset)));
          const log = await logOf(logNumbers, kept);
          const fork = await forkOf(log, storedOf(rows, to));
          await log.close();
          const comparable = rows.filter(([offset]) => offset >= kept);
          const other = comparable.find(([offset, n]) => logNumbers[offset] !== n)?.[0];
          if (other === undefined) expect(fork).toBeUndefined();
          else expect(Number(fork)).toBe(Math.min(other, Math.max(logNumbers.length, 0)));
        },
      ),
    );
  });

  it('is nowhere where the log has no such topic', async () => {
    expect(await forkOf(memoryLog(), storedOf([[0, 0]], 1))).toBeUndefined();
  });

  it('is looked for in more than is read at once', async () => {
    const numbers = Array.from({ length: 5_000 }, (_, at) => at);
    const log = await logOf([...numbers.slice(0, 4_500), ...numbers.slice(4_500).map((n) => n + 10_000)]);
    const rows = numbers.map((n) => [n, n] as const);
    expect(await forkOf(log, storedOf(rows, 5_000))).toBe(4_500n);
    await log.close();
  });
});
