import { messageOf } from '../base/errors.ts';
import type { Logger } from '../base/logger.ts';
import type { LogRecord } from '../broker/record.ts';
import { traceFields } from '../message/trace-context.ts';
import type { AssignedPartition } from './assigned-partition.ts';
import type { AttemptResult, Attempts } from './attempt.ts';
import { DurationCounts } from './attempt-durations.ts';
import { CircuitBreaker } from './circuit-breaker.ts';
import type { Circuit, CircuitOutcome } from './circuit.ts';
import { sizeOf, deliveryLanes, type Delivery, type Task } from './delivery.ts';
import type { HandlerRegistry } from './handlers.ts';
import { Lanes, type Unit } from './lanes.ts';
import { nextStep, type NextStep } from './next-step.ts';
import type { ConsumerSettings } from './options.ts';
import { largestUnit, RateLimits } from './rate-limits.ts';
import { allowancesOf } from './shared-tokens.ts';

/** What a consumer has done since it started, in records. */
export interface ConsumerCounters {
  /** Handled by a handler of this member, and committed. */
  handled: number;
  /** Skipped: handled before, by this member or another. */
  duplicates: number;
  /** Attempts that failed by the handler's fault and were followed by another. */
  retried: number;
  /** Set aside with their attempts used up. */
  dead: number;
  /** Set aside because their type has no handler. */
  parked: number;
  /** Stepped over because their type has no handler. */
  ignored: number;
}

/** What the dispatcher tells of partitions. */
export interface DispatcherEvents {
  /** Something of it ended: it may have room, or be drained. */
  progressed(partition: AssignedPartition): void;
  /** A commit was refused, since another member owns it. */
  lost(partition: AssignedPartition): void;
}

type DispatcherSettings = Pick<
  ConsumerSettings,
  | 'database'
  | 'schema'
  | 'group'
  | 'memberId'
  | 'concurrency'
  | 'attempts'
  | 'backoff'
  | 'onUnhandledType'
  | 'circuitBreaker'
  | 'limits'
  | 'logger'
>;

/** Brings fetched records to their handlers: in order, side by side where that is allowed, again where that is needed. */
export class Dispatcher {
  readonly counters: ConsumerCounters = { handled: 0, duplicates: 0, retried: 0, dead: 0, parked: 0, ignored: 0 };
  readonly durations = new DurationCounts();
  readonly #settings: DispatcherSettings;
  readonly #registry: HandlerRegistry;
  readonly #attempts: Attempts;
  readonly #events: DispatcherEvents;
  readonly #lanes: Lanes<Delivery, AssignedPartition>;
  readonly #timers = new Map<Unit<Delivery>, NodeJS.Timeout>();
  readonly #logger: Logger;
  readonly #circuit: CircuitBreaker;
  readonly #limits: RateLimits;
  #isFilling = false;

  constructor(settings: DispatcherSettings, registry: HandlerRegistry, attempts: Attempts, events: DispatcherEvents) {
    this.#settings = settings;
    this.#registry = registry;
    this.#attempts = attempts;
    this.#events = events;
    this.#logger = settings.logger;
    const { group, memberId, concurrency, circuitBreaker, limits, logger } = settings;
    this.#lanes = new Lanes(deliveryLanes(concurrency, (topic) => registry.isSerial(topic), largestUnit(limits)));
    this.#circuit = new CircuitBreaker(circuitBreaker, () => this.#fill(), logger, { group, memberId });
    this.#limits = new RateLimits(limits, allowancesOf(settings), (units) => {
      for (const unit of units) this.#lanes.resume(unit);
      this.#fill();
    });
  }

  /** Units that run. */
  get running(): number {
    return this.#lanes.running;
  }

  /** Whether handlers are called: `undefined` if nothing would stop that. */
  get circuit(): Circuit['state'] | undefined {
    return this.#circuit.state;
  }

  /** Units that wait for a limit. */
  get limited(): number {
    return this.#limits.waiting;
  }

  /** Begins nothing by itself any more. */
  stop(): void {
    this.#circuit.stop();
    this.#limits.stop();
  }

  /** Takes in the next records of a partition. */
  accept(partition: AssignedPartition, records: readonly LogRecord[]): void {
    for (const record of records) {
      const bytes = sizeOf(record);
      partition.open(record.offset, bytes);
      const task = this.#taskFor(record);
      if (task === undefined) {
        this.counters.ignored += 1;
        partition.finish(record.offset, bytes);
      } else {
        this.#lanes.add({ partition, record, bytes, task });
      }
    }
    this.#fill();
  }

  /** Forgets what waits of a partition. What runs goes on. */
  drop(partition: AssignedPartition): void {
    for (const [unit, timer] of this.#timers) {
      if (unit.items[0]?.partition !== partition) continue;
      clearTimeout(timer);
      this.#timers.delete(unit);
    }
    for (const { bytes } of this.#lanes.drop(partition)) partition.forget(bytes);
    this.#limits.drop((unit) => unit.items[0]?.partition === partition);
  }

  #taskFor({ topic, type }: LogRecord): Task | undefined {
    const handler = this.#registry.find(topic, type);
    if (handler !== undefined) return { todo: 'handle', handler, alone: false };
    if (this.#settings.onUnhandledType === 'ignore') return undefined;
    return { todo: 'park', note: { reason: 'UNHANDLED_TYPE', dead: false, error: undefined, attempts: 0 } };
  }

  #fill(): void {
    if (this.#isFilling) return;
    this.#isFilling = true;
    while (this.#circuit.mayBegin) {
      const unit = this.#lanes.take();
      if (unit === undefined) break;
      if (this.#limits.admit(unit)) void this.#run(unit, this.#circuit.begin());
      else this.#lanes.hold(unit);
    }
    this.#isFilling = false;
  }

  async #run(unit: Unit<Delivery>, isProbe: boolean): Promise<void> {
    const partition = unit.items[0]?.partition;
    if (partition === undefined) return; // no unit is empty
    partition.running += 1;
    const startedAt = performance.now();
    const ended = await this.#attempts.make(unit);
    if (unit.items[0]?.task.todo === 'handle') this.durations.add(partition.topic, performance.now() - startedAt);
    partition.running -= 1;
    this.#circuit.end(outcomeOf(unit, ended), isProbe);
    this.#conclude(unit, partition, ended, isProbe);
    this.#events.progressed(partition);
    this.#fill();
  }

  #conclude(unit: Unit<Delivery>, partition: AssignedPartition, ended: AttemptResult, isProbe: boolean): void {
    switch (ended.result) {
      case 'done':
        this.#count(unit, ended.fresh);
        for (const { record, bytes } of unit.items) partition.finish(record.offset, bytes);
        this.#lanes.finish(unit);
        return;
      case 'lost':
        this.#events.lost(partition);
        this.#lanes.finish(unit);
        return;
      case 'failed':
        this.#goOn(unit, ended, isProbe);
        return;
    }
  }

  #count(unit: Unit<Delivery>, fresh: number): void {
    const { counters } = this;
    counters.duplicates += unit.items.length - fresh;
    const task = unit.items[0]?.task;
    if (task?.todo === 'handle') counters.handled += fresh;
    else if (task?.note.dead === true) counters.dead += fresh;
    else counters.parked += fresh;
  }

  #goOn(unit: Unit<Delivery>, failed: Extract<AttemptResult, { result: 'failed' }>, isProbe: boolean): void {
    const next = nextStep(failed, stateOf(unit, isProbe), this.#settings);
    this.#report(unit, failed.error, next);
    switch (next.step) {
      case 'retry':
        if (next.counts) this.counters.retried += unit.items.length;
        unit.failures += next.counts ? 1 : 0;
        unit.stalls = next.counts ? 0 : unit.stalls + 1;
        this.#runLater(unit, next.afterMs);
        return;
      case 'split':
        for (const item of unit.items) if (item.task.todo === 'handle') item.task = { ...item.task, alone: true };
        this.#lanes.split(unit);
        return;
      case 'bury':
        for (const item of unit.items) item.task = { todo: 'park', note: next.note };
        this.#lanes.split(unit);
        return;
    }
  }

  #runLater(unit: Unit<Delivery>, afterMs: number): void {
    this.#lanes.hold(unit);
    if (unit.items[0]?.partition.state !== 'owned') return;
    const timer = setTimeout(() => {
      this.#timers.delete(unit);
      this.#lanes.resume(unit);
      this.#fill();
    }, afterMs);
    this.#timers.set(unit, timer);
  }

  #report(unit: Unit<Delivery>, error: unknown, next: NextStep): void {
    const [first] = unit.items;
    if (first === undefined) return;
    const { group, memberId } = this.#settings;
    const { topic, partition, offset, messageId, type, headers } = first.record;
    const message = { messageId, ...traceFields(headers), type };
    const place = { topic, partition, offset: offset.toString(), ...message, records: unit.items.length };
    const fields = { group, memberId, ...place, error: messageOf(error), attempt: unit.failures + 1, next: next.step };
    if (next.step === 'bury') this.#logger.error(fields, 'A record is set aside as a dead letter');
    else this.#logger.warn(fields, 'A record was not handled');
  }
}

/** What an attempt says of handlers as a whole. */
function outcomeOf(unit: Unit<Delivery>, ended: AttemptResult): CircuitOutcome {
  if (unit.items[0]?.task.todo !== 'handle') return 'neither';
  if (ended.result === 'done' && ended.fresh > 0) return 'handled';
  return ended.result === 'failed' && ended.by === 'handler' ? 'failed' : 'neither';
}

function stateOf(unit: Unit<Delivery>, isProbe: boolean): Parameters<typeof nextStep>[1] {
  const isParking = unit.items[0]?.task.todo === 'park';
  return { size: unit.items.length, isParking, isProbe, failures: unit.failures, stalls: unit.stalls };
}
