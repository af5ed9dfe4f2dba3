import type pg from 'pg';
import { TailraceError, isTailraceError } from '../base/errors.ts';
import type { Message } from '../message/message.ts';
import type { Consumption, ConsumptionEnd, Tracing } from '../telemetry/tracing.ts';
import { messageOfRecord, type Delivery, type Task } from './delivery.ts';
import { HandlerCall } from './handler-call.ts';
import type { HandlerTransactions, TransactionWork } from './handler-transaction.ts';
import type { HandlerContext } from './handlers.ts';
import type { Unit } from './lanes.ts';
import type { ConsumerSettings } from './options.ts';
import { insertParked, type ParkNote } from './parked-messages.ts';

/** How one attempt at a unit ended. */
export type AttemptResult =
  /** Everything of the unit is handled or parked; `fresh` records by this attempt, the others before. */
  | { readonly result: 'done'; readonly fresh: number }
  /** The partition is another member's. */
  | { readonly result: 'lost' }
  /** Nothing of the unit is done. `payload`: no attempt can end otherwise. */
  | { readonly result: 'failed'; readonly by: 'handler' | 'database' | 'payload'; readonly error: unknown };

/** Makes one attempt at what is to be done with the records of a unit. */
export class Attempts {
  readonly #settings: Pick<ConsumerSettings, 'schema' | 'group' | 'maxHandlerMs'>;
  readonly #transactions: HandlerTransactions;
  readonly #tracing: Tracing | undefined;

  constructor(
    settings: Pick<ConsumerSettings, 'schema' | 'group' | 'maxHandlerMs'>,
    transactions: HandlerTransactions,
    tracing: Tracing | undefined,
  ) {
    this.#settings = settings;
    this.#transactions = transactions;
    this.#tracing = tracing;
  }

  /** Never throws. */
  make(unit: Unit<Delivery>): Promise<AttemptResult> {
    const [first] = unit.items;
    if (first === undefined) return Promise.resolve({ result: 'done', fresh: 0 });
    if (this.#tracing?.isOn !== true) return this.#do(unit, first);
    return this.#tracing.consume(this.#consumption(unit, first), () => this.#do(unit, first), endOf);
  }

  #consumption(unit: Unit<Delivery>, { partition: { topic, partition }, task }: Delivery): Consumption {
    return {
      operation: task.todo === 'park' ? 'park' : 'process',
      group: this.#settings.group,
      topic,
      partition,
      attempt: unit.failures + 1,
      records: unit.items.map(({ record }) => record),
    };
  }

  #do(unit: Unit<Delivery>, first: Delivery): Promise<AttemptResult> {
    switch (first.task.todo) {
      case 'park':
        return this.#park(first, first.task.note);
      case 'handle':
        return this.#handle(unit, first, first.task);
    }
  }

  async #handle(
    unit: Unit<Delivery>,
    { partition, record }: Delivery,
    { handler }: Extract<Task, { todo: 'handle' }>,
  ): Promise<AttemptResult> {
    const messages = decodeAll(unit);
    if (!Array.isArray(messages)) return { result: 'failed', by: 'payload', error: messages.error };
    const { topic, offset } = record;
    const call = new HandlerCall(this.#settings.maxHandlerMs, partition.signal);
    return this.#transact(unit.items, (tx, claim) => {
      const context: HandlerContext = {
        tx,
        record: { topic, partition: partition.partition, offset },
        attempt: unit.failures + 1,
        get signal() {
          return call.signal;
        },
      };
      const fresh = messages.filter((message) => claim(message.id));
      return call.run(() => handler.handle(fresh, context));
    });
  }

  async #park(delivery: Delivery, note: ParkNote): Promise<AttemptResult> {
    const { schema, group } = this.#settings;
    const { generation } = delivery.partition;
    return this.#transact([delivery], (tx: pg.PoolClient) =>
      insertParked(tx, schema, group, generation, delivery.record, note),
    );
  }

  async #transact(deliveries: readonly Delivery[], work: TransactionWork): Promise<AttemptResult> {
    const [first] = deliveries;
    if (first === undefined) return { result: 'done', fresh: 0 };
    const ids = deliveries.map(({ record }) => record.messageId);
    const ended = await this.#transactions.run(first.partition, ids, work);
    switch (ended.outcome) {
      case 'committed':
        return { result: 'done', fresh: ended.handled };
      case 'assignment-lost':
        return { result: 'lost' };
      case 'failed':
        return { result: 'failed', by: ended.by, error: ended.error };
    }
  }
}

/** What a span is told of it. */
function endOf(result: AttemptResult): ConsumptionEnd {
  switch (result.result) {
    case 'done':
      return { ended: result.fresh === 0 ? 'duplicate' : 'done' };
    case 'lost':
      return { ended: 'failed', error: assignmentLost() };
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
