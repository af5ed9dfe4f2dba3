import { describe, expect, it } from 'vitest';
import type { FetchOptions, FetchPosition, TargetLog } from '../../../src/broker/log.ts';
import { memoryLog, type LogCapability, type LogRecord, type MemoryLog } from '../../../src/broker/memory/index.ts';
import {
  logConformance,
  runConformance,
  targetLogSubject,
  type Level,
  type LogSubject,
} from '../../../src/testing/index.ts';

/** How a log is broken: what it does in place of what the sound one does. */
type Breakage = (sound: MemoryLog) => Partial<TargetLog>;

interface Run {
  readonly capabilities?: readonly LogCapability[];
  readonly levels?: readonly Level[];
  /** Which cases. */
  readonly only?: RegExp;
  readonly timeoutMs?: number;
}

/** Names of the cases that fail for a log. */
async function failures(create: () => Promise<LogSubject>, run: Run = {}): Promise<string[]> {
  const { capabilities = ['time-seek', 'compaction'], levels = [0, 4], only = /./, ...others } = run;
  const suite = logConformance({ create, capabilities, levels, seed: 1, ...others });
  const cases = suite.cases.filter(({ name }) => only.test(name));
  const report = await runConformance('broken', { ...suite, cases });
  expect(report.ok).toBe(report.failed === 0);
  return report.levels.flatMap((level) =>
    level.cases.filter(({ outcome }) => outcome === 'failed').map(({ name }) => name),
  );
}

function broken(breakage: Breakage): () => Promise<LogSubject> {
  return () => {
    const sound = memoryLog({ maxMessageBytes: 10_000_000 });
    const log: TargetLog = {
      capabilities: sound.capabilities,
      partitionCount: (topic) => sound.partitionCount(topic),
      ends: (topic) => sound.ends(topic),
      offsetsAt: (topic, time) => sound.offsetsAt(topic, time),
      fetch: (positions, options) => sound.fetch(positions, options),
      createTopic: (topic, partitions, options) => sound.createTopic(topic, partitions, options),
      append: (append) => sound.append(append),
      close: () => sound.close(),
      ...breakage(sound),
    };
    const removeBefore: LogSubject['removeBefore'] = (position) => sound.removeBefore(position);
    return Promise.resolve(targetLogSubject(log, { removeBefore, compact: (topic) => sound.compact(topic) }));
  };
}

/** A log that gives other records than it holds. */
const giving =
  (change: (records: LogRecord[]) => LogRecord[]): Breakage =>
  (sound) => ({ fetch: async (positions, options) => change(await sound.fetch(positions, options)) });

const each = (change: (record: LogRecord) => Partial<LogRecord>): Breakage =>
  giving((records) => records.map((record) => ({ ...record, ...change(record) })));

/** A log that moves a reader to where there is something, and says nothing. */
const jumping =
  (moved: (offset: bigint, ends: { start: bigint; end: bigint }) => bigint): Breakage =>
  (sound) => ({
    fetch: async (positions: readonly FetchPosition[], options?: FetchOptions) => {
      const placed = positions.map(async (position) => {
        const ends = (await sound.ends(position.topic))[position.partition];
        return ends === undefined ? position : { ...position, offset: moved(position.offset, ends) };
      });
      return sound.fetch(await Promise.all(placed), options);
    },
  });

const BREAKAGES: readonly (readonly [what: string, Breakage, failing: RegExp])[] = [
  ['skips a record', giving((records) => records.filter(({ offset }) => offset !== 3n)), /has no gaps/],
  ['leaves out the last record', giving((records) => records.slice(0, -1)), /has no gaps/],
  ['repeats a record', giving((records) => [...records, ...records.slice(-1)]), /has no gaps/],
  ['reorders records', giving((records) => records.toReversed()), /has no gaps/],
  ['exchanges two records, offsets kept', giving(exchanged), /has no gaps/],
  ['writes JSON anew', each(({ payload }) => ({ payload: rewritten(payload) })), /gives the bytes/],
  ['changes bytes', each(({ payloadBytes }) => ({ payloadBytes: asText(payloadBytes) })), /gives the bytes/],
  ['loses milliseconds', each(({ occurredAt }) => ({ occurredAt: toSeconds(occurredAt) })), /gives the bytes/],
  ['drops headers', each(() => ({ headers: {} })), /gives the bytes/],
  ['takes no key for an empty one', each(({ key }) => ({ key: key ?? '' })), /tells no key/],
  ['normalizes keys', each(({ key }) => ({ key: key?.normalize('NFC') ?? null })), /tells no key/],
  ['cuts large messages', each(({ payload }) => ({ payload: payload?.slice(0, 1_500_000) ?? null })), /larger message/],
  ['jumps to its end', jumping((offset, { end }) => (offset > end ? end : offset)), /beyond the end/],
  ['jumps to its start', jumping((offset, { start }) => (offset < start ? start : offset)), /what was removed/],
  [
    'gives as much as it likes',
    (sound) => ({
      fetch: (positions, options) => sound.fetch(positions, { ...options, maxRecords: 1e6, maxBytes: 1e9 }),
    }),
    /no more than maxRecords/,
  ],
  [
    'gives other records on a second read',
    (sound) => {
      let reads = 0;
      return {
        fetch: async (positions, options) => {
          const records = await sound.fetch(positions, options);
          return records.map((record) => ({ ...record, payload: `{"n":${(reads += 1)}}` }));
        },
      };
    },
    /the same on every read/,
  ],
  ['never wakes a fetch', (sound) => ({ fetch: (...call) => deaf(sound, ...call) }), /wakes a fetch/],
  [
    'does not hear the signal',
    (sound) => ({ fetch: (positions, { maxWaitMs = 0 } = {}) => sound.fetch(positions, { maxWaitMs }) }),
    /at its signal/,
  ],
  ['is not closed twice', (sound) => ({ close: onceOnly(() => sound.close()) }), /is closed twice/],
  ['answers after it was closed', () => ({ partitionCount: () => Promise.resolve(0) }), /refuses everything then/],
  [
    'makes topics up',
    (sound) => ({
      fetch: (positions, options) => sound.fetch(positions, options).catch(() => []),
    }),
    /does not exist/,
  ],
  ['gives its own buffers', sharingBuffers, /readers that change/],
  [
    'serves the first partition only',
    (sound) => ({ fetch: (positions, options) => sound.fetch(positions.slice(0, 1), options) }),
    /passes over no partition/,
  ],
  [
    'loses the last record of a key',
    giving((records) => records.filter(({ key }) => key !== 'key-3')),
    /keeps the last record of each key/,
  ],
  [
    'forgets delete markers at once',
    giving((records) => records.filter(({ payload }) => payload !== 'null')),
    /keeps the delete markers/,
  ],
  ['finds the wrong time', (sound) => ({ offsetsAt: (topic) => sound.offsetsAt(topic, new Date(0)) }), /seeks by time/],
];

/** No case may take for ever. */
const NEVER_ANSWER = ['never wakes a fetch', 'does not hear the signal'];

function exchanged(records: LogRecord[]): LogRecord[] {
  const [one, two, ...others] = records;
  if (one === undefined || two === undefined) return records;
  return [{ ...two, offset: one.offset }, { ...one, offset: two.offset }, ...others];
}

function rewritten(payload: string | null): string | null {
  return payload === null ? null : JSON.stringify(JSON.parse(payload));
}

function asText(bytes: Buffer | null): Buffer | null {
  return bytes === null ? null : Buffer.from(bytes.toString('utf8'), 'utf8');
}

function toSeconds(time: Date): Date {
  return new Date(Math.floor(time.getTime() / 1_000) * 1_000);
}

/** Looks once, then waits for the signal alone. */
async function deaf(
  sound: MemoryLog,
  positions: readonly FetchPosition[],
  options: FetchOptions = {},
): Promise<LogRecord[]> {
  const { maxWaitMs = 0, ...others } = options;
  const records = await sound.fetch(positions, others);
  if (records.length > 0 || maxWaitMs < 60_000) return records;
  return new Promise((resolve) => options.signal?.addEventListener('abort', () => resolve([])));
}

function onceOnly(close: () => Promise<void>): () => Promise<void> {
  let isClosed = false;
  return async () => {
    if (isClosed) throw new Error('closed already');
    isClosed = true;
    await close();
  };
}

function sharingBuffers(sound: MemoryLog): Partial<TargetLog> {
  const given = new Map<string, LogRecord>();
  return {
    fetch: async (positions, options) =>
      (await sound.fetch(positions, options)).map((record) => {
        const name = `${record.topic}/${record.partition}/${record.offset}`;
        const known = given.get(name) ?? record;
        given.set(name, known);
        return known;
      }),
  };
}

describe('the conformance suite', () => {
  it('finds nothing wrong with the log that the others are made of', async () => {
    expect(
      await failures(
        broken(() => ({})),
        { levels: [0, 4, 7] },
      ),
    ).toEqual([]);
  });

  it.each(BREAKAGES)('catches a log that %s', async (what, breakage, failing) => {
    const answers = !NEVER_ANSWER.includes(what);
    expect(await failures(broken(breakage), { only: failing, ...(!answers && { timeoutMs: 300 }) })).toHaveLength(1);
  });

  it('catches a log that declares what it does not show', async () => {
    const claiming = broken((sound) => ({
      capabilities: new Set([...sound.capabilities, 'server-side-delay']),
      createTopic: (topic, partitions) => sound.createTopic(topic, partitions),
    }));
    const capabilities: LogCapability[] = ['time-seek', 'compaction', 'server-side-delay'];
    const failed = await failures(claiming, { capabilities });
    expect(failed.filter((name) => /compacted topic|is delayed/.test(name))).toHaveLength(3);
  });

  it('catches a log that shows what it does not declare', async () => {
    const modest = broken(() => ({ capabilities: new Set() }));
    expect(await failures(modest, { capabilities: [] })).toEqual([
      expect.stringContaining('seeks by time'),
      expect.stringContaining('keeps the last record of each key'),
      expect.stringContaining('keeps the delete markers'),
    ]);
  });

  it('catches a log that declares something else than its author', async () => {
    expect(
      await failures(
        broken(() => ({})),
        { capabilities: [] },
      ),
    ).toEqual(expect.arrayContaining([expect.stringContaining('declares what it can do')]));
  });

  it('catches a log that takes a compacted topic and a delay without declaring them', async () => {
    const careless = broken((sound) => ({
      capabilities: new Set(['time-seek']),
      createTopic: (topic, partitions) => sound.createTopic(topic, partitions),
      append: ({ topic, partition, offset, records }) => sound.append({ topic, partition, offset, records }),
    }));
    const failed = await failures(careless, { capabilities: ['time-seek'] });
    expect(failed.filter((name) => /compacted topic|is delayed/.test(name))).toHaveLength(3);
  });

  it('catches a log whose hidden records are passed over', async () => {
    const create = async (): Promise<LogSubject> => {
      const subject = await broken(() => ({}))();
      const appendHidden: LogSubject['appendHidden'] = (topic, partition, records) =>
        Promise.resolve(() => subject.append(topic, partition, records));
      return { ...subject, appendHidden };
    };
    expect(await failures(create)).toEqual([expect.stringContaining('cannot be seen yet')]);
  });

  it('catches, by its history, a log that forgets some of what it has acknowledged', async () => {
    let appends = 0;
    const forgetful = broken((sound) => ({
      append: (append) => ((appends += 1) % 20 === 0 ? Promise.resolve() : sound.append(append)),
    }));
    expect(await failures(forgetful, { levels: [7] })).toHaveLength(1);
  });

  it('catches, by its history, a log that now and then skips a record', async () => {
    let chances = 0;
    const skipping = giving((records) =>
      records.length > 2 && (chances += 1) % 2 === 0 ? records.filter((_, n) => n !== 1) : records,
    );
    expect(await failures(broken(skipping), { levels: [7] })).toHaveLength(1);
  });

  it('shows a log that lives up to what it declares', async () => {
    const delaying: Breakage = (sound) => {
      const held = new Map<string, Date>();
      const isHeld = ({ topic }: { topic: string }): boolean => (held.get(topic)?.getTime() ?? 0) > Date.now();
      return {
        capabilities: new Set([...sound.capabilities, 'server-side-delay']),
        append: async ({ notBefore, ...append }) => {
          if (notBefore !== undefined) held.set(append.topic, notBefore);
          await sound.append(append);
        },
        fetch: async (positions, options) => {
          while (positions.some(isHeld)) await new Promise((resolve) => setTimeout(resolve, 20));
          return sound.fetch(positions, options);
        },
      };
    };
    expect(
      await failures(broken(delaying), { capabilities: ['time-seek', 'compaction', 'server-side-delay'] }),
    ).toEqual([]);
  });
});
