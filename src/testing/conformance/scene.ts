import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { isTailraceError, type ErrorCode, type TailraceError } from '../../base/errors.ts';
import { uuidV7 } from '../../base/uuid.ts';
import type { LogCapability } from '../../broker/capabilities.ts';
import type { FetchOptions, FetchPosition, Log } from '../../broker/log.ts';
import type { LogRecord, NewRecord } from '../../broker/record.ts';
import { Cleanup } from '../cleanup.ts';
import type { TestDatabase } from '../test-database.ts';
import type { LogSubject } from './subject.ts';

/** Where handlers write. */
export type HandlersDatabase = Pick<TestDatabase, 'pool' | 'connectionString' | 'stop'>;

/** What a scene is made of. */
export interface SceneParts {
  readonly subject: LogSubject;
  readonly open: () => Promise<LogSubject>;
  readonly database: () => Promise<HandlersDatabase>;
  readonly seed: number;
}

/** What a case works with: a log, and a topic that no other case knows. */
export class Scene {
  readonly subject: LogSubject;
  readonly topic: string;
  /** For choices that have to be the same again with the same seed. */
  readonly random: () => number;
  /** What a case has opened. */
  readonly cleanup = new Cleanup();
  /** A migrated database for handlers, which all cases share. */
  readonly database: () => Promise<HandlersDatabase>;
  readonly #open: () => Promise<LogSubject>;

  constructor({ subject, open, database, seed }: SceneParts) {
    this.subject = subject;
    this.topic = `conformance-${randomBytes(6).toString('hex')}`;
    this.random = randomOf(seed);
    this.database = database;
    this.#open = open;
  }

  get log(): Log {
    return this.subject.log;
  }

  has(capability: LogCapability): boolean {
    return this.log.capabilities.has(capability);
  }

  /** Another subject, which the case may close. */
  async open(): Promise<LogSubject> {
    const subject = await this.#open();
    this.cleanup.add(() => subject.close());
    return subject;
  }

  createTopic(partitions: number): Promise<void> {
    return this.subject.createTopic(this.topic, partitions);
  }

  append(partition: number, records: readonly NewRecord[]): Promise<void> {
    return this.subject.append(this.topic, partition, records);
  }

  at(partition: number, offset: bigint | number = 0): FetchPosition {
    return { topic: this.topic, partition, offset: BigInt(offset) };
  }

  fetch(positions: readonly FetchPosition[], options?: FetchOptions): Promise<LogRecord[]> {
    return this.log.fetch(positions, options);
  }

  /** Everything that a partition holds, read with the given bounds: each fetch goes on behind the one before. */
  async readAll(partition: number, options: () => FetchOptions = () => ({})): Promise<LogRecord[]> {
    const { start, end } = await this.endsOf(partition);
    const all: LogRecord[] = [];
    for (let offset = start; offset < end;) {
      const records = await this.fetch([this.at(partition, offset)], options());
      assert.ok(records.length > 0, `Nothing was given at ${this.topic}/${partition}/${offset}, below the end ${end}.`);
      assert.deepEqual(
        offsetsOf(records),
        records.map((_, n) => offset + BigInt(n)),
        'The records of a fetch do not follow one another.',
      );
      all.push(...records);
      offset += BigInt(records.length);
    }
    return all;
  }

  async endsOf(partition: number): Promise<{ readonly start: bigint; readonly end: bigint }> {
    const ends = await this.log.ends(this.topic);
    const found = ends.find((one) => one.partition === partition);
    assert.ok(found !== undefined, `ends() leaves out partition ${partition} of ${this.topic}.`);
    return found;
  }
}

/** A message whose payload is its own id. */
export function newRecord(changes: Partial<NewRecord> = {}): NewRecord {
  const messageId = uuidV7();
  return {
    messageId,
    kind: 'event',
    type: 'Counted',
    key: null,
    headers: {},
    payload: JSON.stringify({ messageId }),
    payloadBytes: null,
    occurredAt: new Date(),
    ...changes,
  };
}

export function newRecords(count: number, changes: (n: number) => Partial<NewRecord> = () => ({})): NewRecord[] {
  return Array.from({ length: count }, (_, n) => newRecord(changes(n)));
}

export function idsOf(records: readonly Pick<LogRecord, 'messageId'>[]): string[] {
  return records.map(({ messageId }) => messageId);
}

export function offsetsOf(records: readonly Pick<LogRecord, 'offset'>[]): bigint[] {
  return records.map(({ offset }) => offset);
}

/** A record as plain values, so that two can be compared byte for byte. */
export function plain(record: NewRecord): Record<string, unknown> {
  const { messageId, kind, type, key, headers, payload, payloadBytes, occurredAt, expiresAt, deliverAt } = record;
  return {
    messageId,
    kind,
    type,
    key,
    headers: Object.entries(headers).sort(([a], [b]) => (a < b ? -1 : 1)),
    payload,
    payloadBytes: payloadBytes === null ? null : Buffer.from(payloadBytes).toString('hex'),
    occurredAt: occurredAt.toISOString(),
    expiresAt: expiresAt?.toISOString(),
    deliverAt: deliverAt?.toISOString(),
  };
}

/** Fails unless a partition holds just these messages, unchanged and in this order. */
export function assertSame(found: readonly LogRecord[], expected: readonly NewRecord[]): void {
  assert.deepEqual(idsOf(found), idsOf(expected), 'These are other messages, or in another order.');
  assert.deepEqual(found.map(plain), expected.map(plain));
}

/** Fails unless a call is refused with a code. */
export async function assertRefused(call: () => Promise<unknown>, code: ErrorCode): Promise<TailraceError> {
  const outcome = await call().then(
    () => undefined,
    (error: unknown) => ({ error }),
  );
  assert.ok(outcome !== undefined, `The call succeeded; it has to be refused with ${code}.`);
  const { error } = outcome;
  if (isTailraceError(error, code)) return error;
  throw new assert.AssertionError({ message: `The call failed with ${String(error)}; expected ${code}.` });
}

/** The same numbers in [0, 1) for the same seed. */
function randomOf(seed: number): () => number {
  let state = seed | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let z = Math.imul(state ^ (state >>> 15), state | 1);
    z ^= z + Math.imul(z ^ (z >>> 7), z | 61);
    return ((z ^ (z >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** A whole number from `least` to `most`. */
export function between(random: () => number, least: number, most: number): number {
  return least + Math.floor(random() * (most - least + 1));
}
