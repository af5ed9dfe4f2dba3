import { TailraceError, isTailraceError } from '../base/errors.ts';
import type { LogRecord } from '../broker/record.ts';
import type { Message } from '../message/message.ts';
import type { Consumption, ConsumptionEnd, Tracing } from '../telemetry/tracing.ts';
import { messageOfRecord, priorAttempts, type Delivery, type Task } from './delivery.ts';
import { HandlerCall } from './handler-call.ts';
import type { Begun, Claim, HandlerTransactions, TransactionResult, TransactionWork } from './handler-transaction.ts';
import type { HandlerContext } from './handlers.ts';
import type { Unit } from './lanes.ts';
import type { ConsumerSettings } from './options.ts';
import type { ParkNote } from './park-note.ts';
import type { ParkedMessages, ParkedRow } from './parked-messages.ts';
import { Replays } from './replays.ts';

/** How one attempt at a unit ended. */
export type AttemptResult =
  /** Everything of the unit is handled or parked; `fresh` records by this attempt, the others before. */
  | { readonly result: 'done'; readonly fresh: number }
  /** The partition is another member's. */
  | { readonly result: 'lost' }
  /** Nothing of the unit is done: some of it is not to be handled now, by the database's time. */
  | {
      readonly result: 'untimely';
      readonly expired: readonly Delivery[];
      readonly early: readonly Delivery[];
      readonly nowMs: number;
    }
  /** Nothing of the unit is done. `payload`: no attempt can end otherwise. */
  | { readonly result: 'failed'; readonly by: 'handler' | 'database' | 'payload'; readonly error: unknown };

/** Makes one attempt at what is to be done with the records of a unit. */
export class Attempts {
  readonly #settings: Pick<ConsumerSettings, 'schema' | 'group' | 'maxHandlerMs'>;
  readonly #transactions: HandlerTransactions;
  readonly #messages: ParkedMessages;
  readonly #tracing: Tracing | undefined;
  readonly #replays: Replays;

  constructor(
    settings: Pick<ConsumerSettings, 'schema' | 'group' | 'maxHandlerMs'>,
    transactions: HandlerTransactions,
    messages: ParkedMessages,
    tracing: Tracing | undefined,
  ) {
    this.#settings = settings;
    this.#transactions = transactions;
    this.#messages = messages;
    this.#tracing = tracing;
    this.#replays = new Replays(settings.schema, settings.group);
  }

  /** Never throws. */
  make(unit: Unit<Delivery>): Promise<AttemptResult> {
    const [first] = unit.items;
    if (first === undefined) return Promise.resolve({ result: 'done', fresh: 0 });
    if (this.#tracing?.isOn !== true) return this.#do(unit, first);
    return this.#tracing.consume(this.#consumption(unit, first), () => this.#do(unit, first), endOf);
  }

  #consumption(unit: Unit<Delivery>, first: Delivery): Consumption {
    const { task } = first;
    const { topic, partition } = first.partition;
    return {
      operation: task.todo === 'park' ? 'park' : 'process',
      group: this.#settings.group,
      topic,
      partition,
      attempt: priorAttempts(first) + unit.failures + 1,
      records: unit.items.map(({ record }) => record),
    };
  }

  #do(unit: Unit<Delivery>, first: Delivery): Promise<AttemptResult> {
    switch (first.task.todo) {
      case 'park':
        return first.parked === undefined
          ? this.#park(unit.items)
          : this.#rewrite(first, first.parked, first.task.note);
      case 'handle':
        return this.#handle(unit, first, first.task);
    }
  }

  async #handle(
    unit: Unit<Delivery>,
    first: Delivery,
    { handler }: Extract<Task, { todo: 'handle' }>,
  ): Promise<AttemptResult> {
    const messages = decodeAll(unit);
    if (!Array.isArray(messages)) return { result: 'failed', by: 'payload', error: messages.error };
    const { topic, offset } = first.record;
    const { partition } = first;
    const call = new HandlerCall(this.#settings.maxHandlerMs, partition.signal);
    let untimely: Untimely | undefined;
    const ended = await this.#transact(unit.items, async (tx, { claim, nowMs }) => {
      untimely = untimelyOf(unit.items, nowMs);
      if (untimely !== undefined) throw new Error('Not to be handled now'); // so that nothing of it is committed
      const replayed = await this.#replays.among(tx, unit.items);
      const isWanted = (id: string): boolean => handler.onReplay === 'handle' || !replayed.has(id);
      const fresh = messages.filter((message) => claim(message.id) && isWanted(message.id));
      if (fresh.length === 0) return;
      const context: HandlerContext = {
        tx,
        record: { topic, partition: partition.partition, offset },
        attempt: priorAttempts(first) + unit.failures + 1,
        isReplay: fresh.some(({ id }) => replayed.has(id)),
        get signal() {
          return call.signal;
        },
      };
      await call.run(() => handler.handle(fresh, context));
    });
    return untimely === undefined || ended.result !== 'failed' ? ended : { result: 'untimely', ...untimely };
  }

  #park(deliveries: readonly Delivery[]): Promise<AttemptResult> {
    return this.#transact(deliveries, (tx, { claim }) => {
      const entries = deliveries.flatMap(({ record, task, firstFailure }) =>
        task.todo === 'park' && claim(record.messageId) ? [{ record, note: task.note, firstFailure }] : [],
      );
      return this.#messages.insert(tx, deliveries[0]?.partition.generation ?? 0, entries);
    });
  }

  async #rewrite({ partition, firstFailure }: Delivery, row: ParkedRow, note: ParkNote): Promise<AttemptResult> {
    const ended = await this.#transactions.run(partition, { of: 'nothing' }, (tx) =>
      this.#messages.rewrite(tx, row, note, firstFailure),
    );
    return ended.outcome === 'committed' ? { result: 'done', fresh: 1 } : resultOf(ended);
  }

  async #transact(deliveries: readonly Delivery[], work: TransactionWork): Promise<AttemptResult> {
    const [first] = deliveries;
    if (first === undefined) return { result: 'done', fresh: 0 };
    return resultOf(await this.#transactions.run(first.partition, this.#claim(deliveries, first.parked), work));
  }

  #claim(deliveries: readonly Delivery[], row: ParkedRow | undefined): Claim {
    if (row !== undefined) return { of: 'parked', sql: (client) => this.#messages.claimSql(client, row) };
    return {
      of: 'log',
      messageIds: deliveries.map(({ record }) => record.messageId),
      asksTime: deliveries.some(({ record, task }) => task.todo === 'handle' && isTimed(record)),
    };
  }
}

function resultOf(ended: TransactionResult): AttemptResult {
  switch (ended.outcome) {
    case 'committed':
      return { result: 'done', fresh: ended.handled };
    case 'assignment-lost':
      return { result: 'lost' };
    case 'failed':
      return { result: 'failed', by: ended.by, error: ended.error };
  }
}

type Untimely = Omit<Extract<AttemptResult, { result: 'untimely' }>, 'result'>;

function isTimed({ expiresAt, deliverAt }: LogRecord): boolean {
  return expiresAt !== undefined || deliverAt !== undefined;
}

/** What is not to be handled at a time. A parked row was looked at because its time had come. */
function untimelyOf(deliveries: readonly Delivery[], nowMs: Begun['nowMs']): Untimely | undefined {
  if (nowMs === undefined) return undefined;
  const expired = deliveries.filter(
    ({ record }) => record.expiresAt !== undefined && record.expiresAt.getTime() <= nowMs,
  );
  const early = deliveries.filter(
    (delivery) =>
      delivery.parked === undefined &&
      delivery.record.deliverAt !== undefined &&
      delivery.record.deliverAt.getTime() > nowMs &&
      !expired.includes(delivery),
  );
  return expired.length + early.length === 0 ? undefined : { expired, early, nowMs };
}

/** What a span is told of it. */
function endOf(result: AttemptResult): ConsumptionEnd {
  switch (result.result) {
    case 'done':
      return { ended: result.fresh === 0 ? 'duplicate' : 'done' };
    case 'lost':
      return { ended: 'failed', error: assignmentLost() };
    case 'untimely':
      return { ended: 'done' };
    case 'failed':
      return { ended: 'failed', error: result.error };
  }
}

function assignmentLost(): TailraceError {
  return new TailraceError('ASSIGNMENT_LOST', 'Another member owns the partition: what was done is undone.');
}

/** Messages are decoded anew for each attempt: what a handler does to a payload stays in its attempt. */
function decodeAll(unit: Unit<Delivery>): Message[] | { error: unknown } {
  try {
    return unit.items.map(({ record }) => messageOfRecord(record));
  } catch (error) {
    if (isTailraceError(error, 'INVALID_PAYLOAD')) return { error };
    throw error;
  }
}
