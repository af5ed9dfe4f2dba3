import type pg from 'pg';
import { TailraceError, isTailraceError } from '../base/errors.ts';
import type { LogRecord } from '../broker/record.ts';
import type { Message } from '../message/message.ts';
import type { Consumption, ConsumptionEnd, Tracing } from '../telemetry/tracing.ts';
import { claimKindOf, messageOfRecord, priorAttempts, type Delivery, type Task } from './delivery.ts';
import { AbandonedHandler, HandlerCall } from './handler-call.ts';
import type { Begun, Claim, HandlerTransactions, TransactionResult, TransactionWork } from './handler-transaction.ts';
import type { DeliveryContext, RegisteredHandler } from './handlers.ts';
import type { Unit } from './lanes.ts';
import type { ConsumerSettings } from './options.ts';
import type { ParkNote } from './park-note.ts';
import type { ParkedMessages, ParkedRow } from './parked-messages.ts';
import { Replays } from './replays.ts';
import { Verdicts } from './verdict.ts';

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
  | {
      readonly result: 'failed';
      readonly by: 'handler' | 'database' | 'payload';
      readonly error: unknown;
      /** The ids of messages that were said to be handled before the handler was called: no other attempt may follow. */
      readonly claimed?: ReadonlySet<string>;
    };

/** Makes one attempt at what is to be done with the records of a unit. */
export class Attempts {
  readonly #settings: Pick<ConsumerSettings, 'schema' | 'group' | 'maxHandlerMs' | 'delivery'>;
  readonly #transactions: HandlerTransactions;
  readonly #messages: ParkedMessages;
  readonly #tracing: Tracing | undefined;
  readonly #replays: Replays;

  constructor(
    settings: Pick<ConsumerSettings, 'schema' | 'group' | 'maxHandlerMs' | 'delivery'>,
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

  /** Never throws. `onCommitting`: all that is left is the commit, which another attempt can begin behind. */
  make(unit: Unit<Delivery>, onCommitting: () => void): Promise<AttemptResult> {
    const [first] = unit.items;
    if (first === undefined) return Promise.resolve({ result: 'done', fresh: 0 });
    const attempt = (): Promise<AttemptResult> => this.#do(unit, first, onCommitting);
    if (this.#tracing?.isOn !== true) return attempt();
    return this.#tracing.consume(this.#consumption(unit, first), attempt, endOf);
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

  #do(unit: Unit<Delivery>, first: Delivery, onCommitting: () => void): Promise<AttemptResult> {
    switch (first.task.todo) {
      case 'park':
        return first.parked === undefined || first.task.by === 'nothing'
          ? this.#park(unit.items)
          : this.#rewrite(first, first.parked, first.task.note);
      case 'handle':
        return this.#handle(unit, first, first.task, onCommitting);
    }
  }

  async #handle(
    unit: Unit<Delivery>,
    first: Delivery,
    { handler }: Extract<Task, { todo: 'handle' }>,
    onCommitting: () => void,
  ): Promise<AttemptResult> {
    const messages = decodeAll(unit);
    if (!Array.isArray(messages)) return { result: 'failed', by: 'payload', error: messages.error };
    const call = new HandlerCall(this.#settings.maxHandlerMs, first.partition.signal);
    const verdicts = new Verdicts();
    const handle = (fresh: Fresh, tx?: pg.PoolClient): Promise<void> =>
      call.run(() =>
        verdicts.hear(() => handler.handle(fresh.messages, contextOf(call, verdicts, unit, first, fresh.isReplay, tx))),
      );
    const { delivery } = this.#settings;
    if (delivery === 'at-most-once') return this.#claimThenHandle(unit.items, messages, handler, handle);
    // A parked row goes, and the database's time is looked at, in a transaction.
    if (
      delivery === 'at-least-once' &&
      first.parked === undefined &&
      !unit.items.some(({ record }) => isTimed(record))
    ) {
      const isReplay = unit.items.some(({ partition, record }) => partition.isReplay(record.offset));
      return done(messages.length, await settled(() => handle({ messages, isReplay })));
    }
    const work: TransactionWork = async (tx, begun) => {
      const fresh = await this.#freshOf(tx, begun, unit.items, messages, handler);
      if (fresh.messages.length > 0) await handle(fresh, delivery === 'effectively-once' ? tx : undefined);
    };
    return this.#inTime(unit.items, work, onCommitting);
  }

  /** Says that messages are handled before they are, durably: whatever happens then, nobody handles them again. */
  async #claimThenHandle(
    deliveries: readonly Delivery[],
    messages: readonly Message[],
    handler: RegisteredHandler,
    handle: (fresh: Fresh) => Promise<void>,
  ): Promise<AttemptResult> {
    let fresh: Fresh = { messages: [], isReplay: false };
    const claimed = await this.#inTime(deliveries, async (tx, begun) => {
      fresh = await this.#freshOf(tx, begun, deliveries, messages, handler);
    });
    if (claimed.result !== 'done' || claimed.fresh === 0 || fresh.messages.length === 0) return claimed;
    const ended = done(fresh.messages.length, await settled(() => handle(fresh)));
    return ended.result === 'failed' ? { ...ended, claimed: new Set(fresh.messages.map(({ id }) => id)) } : ended;
  }

  /** A transaction that comes to nothing where it is not the time for all of its messages. */
  async #inTime(
    deliveries: readonly Delivery[],
    work: TransactionWork,
    onCommitting?: () => void,
  ): Promise<AttemptResult> {
    let untimely: Untimely | undefined;
    const timely: TransactionWork = (tx, begun) => {
      untimely = untimelyOf(deliveries, begun.nowMs);
      if (untimely !== undefined) throw new Error('Not to be handled now'); // so that nothing of it is committed
      return work(tx, begun);
    };
    const ended = await this.#transact(deliveries, timely, onCommitting);
    return untimely === undefined || ended.result !== 'failed' ? ended : { result: 'untimely', ...untimely };
  }

  async #freshOf(
    tx: pg.PoolClient,
    { claim }: Begun,
    deliveries: readonly Delivery[],
    messages: readonly Message[],
    handler: RegisteredHandler,
  ): Promise<Fresh> {
    const replayed = await this.#replays.among(tx, deliveries);
    const isWanted = (id: string): boolean => handler.onReplay === 'handle' || !replayed.has(id);
    const fresh = messages.filter((message) => claim(message.id) && isWanted(message.id));
    return { messages: fresh, isReplay: fresh.some(({ id }) => replayed.has(id)) };
  }

  async #park(deliveries: readonly Delivery[]): Promise<AttemptResult> {
    let parked = 0;
    const ended = await this.#transact(deliveries, (tx, { claim }) => {
      const entries = deliveries.flatMap(({ record, task, firstFailure }) =>
        task.todo === 'park' && (task.by === 'nothing' || claim(record.messageId))
          ? [{ record, note: task.note, firstFailure }]
          : [],
      );
      parked = entries.length;
      return this.#messages.insert(tx, deliveries[0]?.partition.generation ?? 0, entries);
    });
    return ended.result === 'done' && deliveries[0]?.task.by === 'nothing' ? { ...ended, fresh: parked } : ended;
  }

  async #rewrite({ partition, firstFailure }: Delivery, row: ParkedRow, note: ParkNote): Promise<AttemptResult> {
    const ended = await this.#transactions.run(partition, { of: 'nothing' }, (tx) =>
      this.#messages.rewrite(tx, row, note, firstFailure),
    );
    return ended.outcome === 'committed' ? { result: 'done', fresh: 1 } : resultOf(ended);
  }

  async #transact(
    deliveries: readonly Delivery[],
    work: TransactionWork,
    onCommitting?: () => void,
  ): Promise<AttemptResult> {
    const [first] = deliveries;
    if (first === undefined) return { result: 'done', fresh: 0 };
    const claim = this.#claim(first, deliveries);
    return resultOf(
      await this.#transactions.run(first.partition, claim, this.#forgetting(deliveries, work), onCommitting),
    );
  }

  /** With whatever becomes of suspects, what was recorded of them goes. */
  #forgetting(deliveries: readonly Delivery[], work: TransactionWork): TransactionWork {
    const suspects = deliveries.filter(({ crashes, parked }) => crashes !== undefined && parked === undefined);
    const [first] = suspects;
    if (first === undefined) return work;
    return async (tx, begun) => {
      const records = suspects.map(({ record }) => record);
      await this.#messages.forgetSuspects(tx, first.partition, records);
      return work(tx, begun);
    };
  }

  #claim(first: Delivery, deliveries: readonly Delivery[]): Claim {
    const { parked, task } = first;
    const by = claimKindOf(task);
    if (by === 'nothing') return { of: 'nothing' };
    if (parked !== undefined) return { of: 'parked', sql: (client) => this.#messages.claimSql(client, parked) };
    const asksTime = deliveries.some((one) => one.task.todo === 'handle' && isTimed(one.record));
    if (by === 'cursor') {
      const to = (deliveries.at(-1)?.record.offset ?? first.record.offset) + 1n;
      return { of: 'cursor', from: first.record.offset, to, messages: deliveries.length, asksTime };
    }
    return { of: 'log', messageIds: deliveries.map(({ record }) => record.messageId), asksTime };
  }
}

/** Messages that are to be handled now. */
interface Fresh {
  readonly messages: readonly Message[];
  readonly isReplay: boolean;
}

/** What a handler gets. Without a transaction there is no `tx`. */
function contextOf(
  call: HandlerCall,
  { reject, release }: Verdicts,
  unit: Unit<Delivery>,
  first: Delivery,
  isReplay: boolean,
  tx: pg.PoolClient | undefined,
): DeliveryContext {
  const { topic, offset } = first.record;
  return {
    ...(tx !== undefined && { tx }),
    record: { topic, partition: first.partition.partition, offset },
    attempt: priorAttempts(first) + unit.failures + 1,
    isReplay,
    get signal() {
      return call.signal;
    },
    reject,
    release,
  };
}

/** What a handler without a transaction failed with. */
async function settled(handle: () => Promise<void>): Promise<{ readonly error: unknown } | undefined> {
  try {
    await handle();
    return undefined;
  } catch (error) {
    return { error: error instanceof AbandonedHandler ? error.reason : error };
  }
}

function done(fresh: number, failed: { readonly error: unknown } | undefined): AttemptResult {
  return failed === undefined ? { result: 'done', fresh } : { result: 'failed', by: 'handler', error: failed.error };
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
