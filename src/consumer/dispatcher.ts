import { backoffMs } from '../base/backoff.ts';
import type { LogRecord } from '../broker/record.ts';
import type { AssignedPartition } from './assigned-partition.ts';
import type { AttemptResult, Attempts } from './attempt.ts';
import { DurationCounts } from './attempt-durations.ts';
import { CircuitBreaker } from './circuit-breaker.ts';
import type { Circuit, CircuitOutcome } from './circuit.ts';
import { countDone, noCounts, type ConsumerCounters } from './counters.ts';
import {
  deliveryLanes,
  isInLine,
  isLinedUp,
  isLook,
  isSuspect,
  laneOf,
  parkTask,
  priorAttempts,
  sizeOf,
  wasBegun,
  type Delivery,
  type LaneItem,
  type Look,
  type LookTarget,
  type Task,
} from './delivery.ts';
import { DeliveryReport } from './delivery-report.ts';
import type { HandlerRegistry } from './handlers.ts';
import { Lanes, type Unit } from './lanes.ts';
import { nextStep } from './next-step.ts';
import type { ConsumerSettings } from './options.ts';
import { errorText, expired, LINED_UP, NOT_DUE, processDied, unhandled } from './park-note.ts';
import type { BegunRecord, Found, ParkedRow } from './parked-messages.ts';
import { largestUnit, RateLimits } from './rate-limits.ts';
import { allowancesOf } from './shared-tokens.ts';
import { SuspectGate } from './suspect-gate.ts';
import { verdictOf } from './verdict.ts';
import { WorkRange } from './work-range.ts';

/** What the dispatcher tells of partitions. */
export interface DispatcherEvents {
  /** Something of it ended: it may have room, or be drained. */
  progressed(partition: AssignedPartition): void;
  /** A commit was refused, since another member owns it. */
  lost(partition: AssignedPartition): void;
  /** Something that is parked of a partition will be due after this time. */
  dueAfter(ms: number, partition: AssignedPartition): void;
}

/** What the dispatcher has done for it. */
export interface DispatcherWork {
  readonly attempts: Attempts;
  /** Records that a unit is begun which a former owner may have died of. */
  recordBegun(partition: AssignedPartition, deliveries: readonly Delivery[]): Promise<BegunRecord>;
  /** Counts an attempt at a record that was begun when a process died. Answers how many there were; 0: it is handled. */
  countSuspect(delivery: Delivery): Promise<number>;
  /** Looks at a parked row in the database. */
  find(look: Look): Promise<Found>;
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
  | 'delayed'
  | 'deadLetters'
  | 'onUnhandledType'
  | 'circuitBreaker'
  | 'delivery'
  | 'limits'
  | 'logger'
>;

/**
 * Brings fetched records to their handlers: in order, side by side where that is allowed, again where that is needed. What is
 * parked takes its turn in the same lanes, so that the records of a key meet nowhere else.
 */
export class Dispatcher {
  readonly counters: ConsumerCounters = noCounts();
  readonly durations = new DurationCounts();
  readonly #settings: DispatcherSettings;
  readonly #registry: HandlerRegistry;
  readonly #work: DispatcherWork;
  readonly #events: DispatcherEvents;
  readonly #lanes: Lanes<LaneItem, AssignedPartition>;
  readonly #timers = new Map<Unit<LaneItem>, NodeJS.Timeout>();
  readonly #report: DeliveryReport;
  readonly #circuit: CircuitBreaker;
  readonly #limits: RateLimits;
  #isFilling = false;
  readonly #lane: (item: LaneItem) => string | undefined;
  readonly #suspects = new SuspectGate<Unit<LaneItem>>();

  constructor(settings: DispatcherSettings, registry: HandlerRegistry, work: DispatcherWork, events: DispatcherEvents) {
    this.#settings = settings;
    this.#registry = registry;
    this.#work = work;
    this.#events = events;
    this.#report = new DeliveryReport(settings);
    const { group, memberId, concurrency, circuitBreaker, limits, logger } = settings;
    this.#lane = laneOf((topic) => registry.isSerial(topic));
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
      const task = this.#taskFor(partition, record);
      if (task === undefined) {
        this.counters.ignored += 1;
        partition.finish(record.offset, bytes);
      } else {
        this.#lanes.add({ partition, record, bytes, task, firstFailure: undefined });
      }
    }
    this.#fill();
  }

  /** Something that is parked may be due, or may have changed: to be looked at in its lane, before what waits there. */
  look(partition: AssignedPartition, target: LookTarget): void {
    if (partition.state !== 'owned') return;
    const { parked } = partition;
    const isNew = 'offset' in target ? parked.takeAlone(target.offset) : parked.look(target.key);
    if (isNew) this.#lanes.addFirst({ partition, target });
    this.#fill();
  }

  /** Forgets what waits of a partition. What runs goes on. Answers the offsets of what it forgot, in order. */
  drop(partition: AssignedPartition): bigint[] {
    const forgotten: bigint[] = [];
    for (const [unit, timer] of this.#timers) {
      if (unit.items[0]?.partition !== partition) continue;
      clearTimeout(timer);
      this.#timers.delete(unit);
    }
    for (const item of this.#lanes.drop(partition)) {
      if (isLook(item) || item.parked !== undefined) continue;
      partition.forget(item.bytes);
      forgotten.push(item.record.offset);
    }
    const isOfPartition = (unit: Unit<LaneItem>): boolean => unit.items[0]?.partition === partition;
    this.#suspects.drop(isOfPartition);
    this.#limits.drop(isOfPartition);
    queueMicrotask(() => this.#fill()); // a suspect of another partition may have its turn, once all are dropped that go now
    return forgotten.sort((a, b) => (a < b ? -1 : 1));
  }

  #taskFor(partition: AssignedPartition, { topic, type, offset }: LogRecord): Task | undefined {
    const handler = this.#registry.find(topic, type);
    if (handler?.onReplay === 'skip' && partition.isReplay(offset)) return undefined;
    if (handler !== undefined) return { todo: 'handle', handler, alone: false };
    if (this.#settings.onUnhandledType === 'ignore') return undefined;
    this.#report.unhandled(topic, type);
    return { todo: 'park', note: unhandled(0) };
  }

  #fill(): void {
    if (this.#isFilling) return;
    this.#isFilling = true;
    while (this.#circuit.mayBegin) {
      const suspect = this.#suspects.next();
      if (suspect !== undefined) this.#lanes.resume(suspect);
      const unit = this.#lanes.take();
      if (unit === undefined) break;
      if (!this.#lineUp(unit)) this.#lanes.split(unit);
      else if (this.#isToRunAlone(unit) && !this.#suspects.admit(unit)) this.#lanes.hold(unit);
      else if (this.#limits.admit(unit)) void this.#run(unit, this.#circuit.begin());
      else this.#lanes.hold(unit);
    }
    this.#isFilling = false;
  }

  #suspectIn({ items: [first] }: Unit<LaneItem>): Delivery | undefined {
    if (this.#settings.delivery !== 'effectively-once' || first === undefined || isLook(first)) return undefined;
    return isSuspect(first, this.#lane(first)) ? first : undefined;
  }

  /** Suspects that were begun before run one at a time. */
  #isToRunAlone(unit: Unit<LaneItem>): boolean {
    const suspect = this.#suspectIn(unit);
    return suspect !== undefined && wasBegun(suspect);
  }

  /** Records a suspect unit before it begins. Answers what to do in place of it, if it is not to be handled. */
  async #recordSuspect(unit: Unit<LaneItem>, first: Delivery): Promise<(() => void) | undefined> {
    try {
      return await (wasBegun(first) ? this.#countSuspect(unit, first) : this.#recordBegun(unit, first));
    } catch (error) {
      unit.stalls += 1;
      this.#report.unrecorded(first, error);
      return () => this.#runLater(unit, backoffMs(unit.stalls));
    }
  }

  async #recordBegun(unit: Unit<LaneItem>, { partition }: Delivery): Promise<(() => void) | undefined> {
    const deliveries = deliveriesOf(unit).items;
    const { recorded, known } = await this.#work.recordBegun(partition, deliveries);
    if (known.size > 0) {
      for (const delivery of deliveries) if (known.has(delivery.record.offset)) standAlone(delivery);
      return () => this.#lanes.split(unit);
    }
    if (recorded > 0) this.#recorded(unit, 0);
    return undefined; // if nothing was recorded, all of it was handled, as will turn out
  }

  async #countSuspect(unit: Unit<LaneItem>, delivery: Delivery): Promise<(() => void) | undefined> {
    const attempts = await this.#work.countSuspect(delivery);
    if (attempts === 0) return undefined;
    this.#recorded(unit, attempts - 1);
    if (attempts <= this.#settings.attempts) return undefined;
    const { isInLine: inLine, isStrict } = this.#failedUnit(unit, delivery, false);
    delivery.task = parkTask(delivery.task, processDied(priorAttempts(delivery), inLine && isStrict));
    this.#report.died(delivery);
    return () => this.#lanes.split(unit);
  }

  #recorded(unit: Unit<LaneItem>, crashes: number): void {
    const { items } = deliveriesOf(unit);
    for (const delivery of items) delivery.crashes = crashes;
    const [first] = items;
    if (first?.parked === undefined) first?.partition.suspects.clear(this.#lane(first));
  }

  /**
   * Has records of blocked keys line up in place of being handled. False where that is so of some records of a unit: a key
   * was blocked after they were put together.
   */
  #lineUp(unit: Unit<LaneItem>): boolean {
    const linedUp = unit.items.filter((item): item is Delivery => !isLook(item) && isLinedUp(item));
    if (linedUp.length > 0 && linedUp.length < unit.items.length) return false;
    for (const delivery of linedUp) delivery.task = parkTask(delivery.task, LINED_UP);
    return true;
  }

  async #run(unit: Unit<LaneItem>, isProbe: boolean): Promise<void> {
    const partition = unit.items[0]?.partition;
    if (partition === undefined) return; // no unit is empty
    partition.running += 1;
    const conclude = await this.#do(unit, isProbe);
    partition.running -= 1;
    this.#suspects.leave(unit);
    conclude();
    this.#events.progressed(partition);
    this.#fill();
  }

  /** Does what is to be done with a unit. What follows from it is not done before nothing of it runs any more. */
  async #do(unit: Unit<LaneItem>, isProbe: boolean): Promise<() => void> {
    const [first] = unit.items;
    if (first !== undefined && isLook(first)) {
      const conclude = await this.#lookAt(unit, first);
      this.#circuit.end('neither', isProbe);
      return conclude;
    }
    const suspect = this.#suspectIn(unit);
    const instead = suspect && (await this.#recordSuspect(unit, suspect));
    if (instead !== undefined) {
      this.#circuit.end('neither', isProbe);
      return instead;
    }
    const deliveries = deliveriesOf(unit);
    const startedAt = performance.now();
    const ended = await this.#work.attempts.make(deliveries, () => {
      this.#lanes.leave(unit);
      this.#fill();
    });
    const { task, partition } = deliveries.items[0] ?? {};
    if (task?.todo === 'handle' && partition !== undefined) {
      this.durations.add(partition.topic, performance.now() - startedAt);
    }
    this.#circuit.end(outcomeOf(task, ended), isProbe);
    return () => this.#conclude(unit, deliveries, ended, isProbe);
  }

  async #lookAt(unit: Unit<LaneItem>, look: Look): Promise<() => void> {
    try {
      const found = await this.#work.find(look);
      return () => this.#concludeLook(unit, look, found);
    } catch (error) {
      this.#report.unseen(look, error);
      unit.stalls += 1;
      return () => this.#runLater(unit, backoffMs(unit.stalls));
    }
  }

  #concludeLook(unit: Unit<LaneItem>, look: Look, found: Found): void {
    const { partition, target } = look;
    if (found.found === 'due') {
      const { row, record } = found;
      if (row.reason === 'NOT_DUE' && !row.isSuspect) this.#countTimer(row.latenessMs);
      const task = this.#parkedTaskFor(record, row.attempts);
      const bytes = sizeOf(record);
      this.#lanes.replace(unit, [{ partition, record, bytes, task, parked: row, firstFailure: undefined }]);
      return;
    }
    if (found.found === 'later' && found.afterMs !== undefined) this.#events.dueAfter(found.afterMs, partition);
    this.#settle(unit, look, 'offset' in target ? 'none' : found.found);
  }

  /** The type's handler may be gone by now; nothing that is parked is ever ignored. */
  #parkedTaskFor({ topic, type }: LogRecord, attempts: number): Task {
    const handler = this.#registry.find(topic, type);
    return handler === undefined
      ? { todo: 'park', note: unhandled(attempts) }
      : { todo: 'handle', handler, alone: true };
  }

  #countTimer(latenessMs = 0): void {
    this.counters.timersFired += 1;
    this.counters.timerLatenessMs += latenessMs;
  }

  /** A look, or what came of it, is done with: the next row of the key follows, until there is none to be handled. */
  #settle(unit: Unit<LaneItem>, { partition, target }: Look, end: 'none' | 'later' | 'handled'): void {
    if ('offset' in target) {
      partition.parked.leaveAlone(target.offset);
      this.#lanes.finish(unit);
    } else if (partition.parked.settle(target.key, end)) this.#lanes.replace(unit, [{ partition, target }]);
    else this.#lanes.finish(unit);
  }

  #conclude(unit: Unit<LaneItem>, deliveries: Unit<Delivery>, ended: AttemptResult, isProbe: boolean): void {
    const [first] = deliveries.items;
    switch (ended.result) {
      case 'done':
        countDone(this.counters, deliveries.items, ended.fresh);
        if (first?.parked === undefined) this.#finish(unit, deliveries, ended.fresh);
        else this.#settleParked(unit, first, first.parked);
        return;
      case 'lost':
        if (first !== undefined) this.#events.lost(first.partition);
        this.#lanes.finish(unit);
        return;
      case 'untimely':
        for (const { partition, record } of ended.early) this.#expect(partition, record, ended.nowMs);
        for (const delivery of ended.early) delivery.task = parkTask(delivery.task, NOT_DUE);
        for (const delivery of ended.expired) {
          const note = expired(delivery.record.expiresAt, priorAttempts(delivery) + unit.failures);
          delivery.task = parkTask(delivery.task, note);
        }
        this.#lanes.split(unit);
        return;
      case 'failed':
        this.#goOn(unit, deliveries, ended, isProbe);
        return;
    }
  }

  /** Records from the log are handled, or committed to `parked_message`. */
  #finish(unit: Unit<LaneItem>, { items }: Unit<Delivery>, fresh: number): void {
    for (const { partition, record, bytes, task } of items) {
      partition.finish(record.offset, bytes);
      if (task.todo !== 'park') continue;
      if (task.note.delayMs !== undefined) this.#events.dueAfter(task.note.delayMs, partition);
      if (task.note.reason === 'KEY_PARKED') this.#expect(partition, record, Date.now());
      if (!task.note.blocks || record.key === null) continue;
      partition.parked.block(record.key);
      // Of a commit whose answer was lost it is not known what it wrote.
      if (fresh < items.length) this.look(partition, { key: record.key });
    }
    this.#lanes.finish(unit);
  }

  /** A parked row is handled, or written anew; or an operator has changed it meanwhile. */
  #settleParked(unit: Unit<LaneItem>, { partition, record, task, parked }: Delivery, row: ParkedRow): void {
    if (task.todo === 'park' && task.note.delayMs !== undefined) this.#events.dueAfter(task.note.delayMs, partition);
    const { key, offset } = record;
    const target = row.blocks && key !== null ? { key } : { key, offset };
    if (parked !== undefined) this.#settle(unit, { partition, target }, 'handled');
  }

  /** A record that is to be delivered later has been parked, or will be. */
  #expect(partition: AssignedPartition, { deliverAt }: LogRecord, nowMs: number): void {
    if (deliverAt !== undefined) this.#events.dueAfter(Math.max(0, deliverAt.getTime() - nowMs), partition);
  }

  #goOn(
    unit: Unit<LaneItem>,
    { items }: Unit<Delivery>,
    failed: Extract<AttemptResult, { result: 'failed' }>,
    isProbe: boolean,
  ): void {
    const [first] = items;
    if (first === undefined) return;
    const next = nextStep(failed, this.#failedUnit(unit, first, isProbe), this.#settings);
    const attempt = priorAttempts(first) + unit.failures + 1;
    this.#report.failed(first, attempt, unit.items.length, failed.error, next);
    const isReleased = verdictOf(failed.error)?.verdict === 'release';
    if (!isReleased && (next.step !== 'retry' || next.counts)) {
      for (const item of items) item.firstFailure ??= { error: errorText(failed.error), at: performance.now() };
    }
    if (isReleased && (next.step === 'retry' || next.step === 'give-back')) this.counters.released += items.length;
    switch (next.step) {
      case 'retry':
        if (next.counts) this.counters.retried += unit.items.length;
        unit.failures += next.counts ? 1 : 0;
        unit.stalls = next.counts ? 0 : unit.stalls + 1;
        this.#runLater(unit, next.afterMs);
        return;
      case 'split':
        for (const item of items) if (item.task.todo === 'handle') item.task = { ...item.task, alone: true };
        this.#lanes.split(unit);
        return;
      case 'give-back':
        for (const { partition, record, bytes } of items) {
          if (partition instanceof WorkRange) partition.release(record.offset, bytes);
        }
        this.#lanes.finish(unit);
        return;
      case 'delay':
      case 'bury':
        for (const item of items) {
          const isClaimed = failed.claimed?.has(item.record.messageId) === true;
          item.task = isClaimed ? { todo: 'park', note: next.note, by: 'nothing' } : parkTask(item.task, next.note);
        }
        this.#lanes.split(unit);
        return;
    }
  }

  #failedUnit(unit: Unit<LaneItem>, first: Delivery, isProbe: boolean): Parameters<typeof nextStep>[1] {
    const { task } = first;
    const { items } = deliveriesOf(unit);
    const own = task.todo === 'handle' ? task.handler.deadLetters : undefined;
    return {
      size: unit.items.length,
      isParking: task.todo === 'park',
      isProbe,
      failures: priorAttempts(first) + unit.failures,
      stalls: unit.stalls,
      isInLine: isInLine(first),
      canGoBack: first.partition instanceof WorkRange && items.every(({ crashes }) => crashes === undefined),
      isStrict: (own ?? this.#settings.deadLetters) === 'strict',
    };
  }

  #runLater(unit: Unit<LaneItem>, afterMs: number): void {
    this.#lanes.hold(unit);
    if (unit.items[0]?.partition.state !== 'owned') return;
    const timer = setTimeout(() => {
      this.#timers.delete(unit);
      this.#lanes.resume(unit);
      this.#fill();
    }, afterMs);
    this.#timers.set(unit, timer);
  }
}

/** What an attempt says of handlers as a whole. */
function outcomeOf(task: Task | undefined, ended: AttemptResult): CircuitOutcome {
  if (task?.todo !== 'handle') return 'neither';
  if (ended.result === 'done' && ended.fresh > 0) return 'handled';
  if (ended.result !== 'failed' || ended.by !== 'handler') return 'neither';
  return verdictOf(ended.error) === undefined ? 'failed' : 'neither';
}

/** A process has died while it ran: whether of it is to be found out by itself. */
function standAlone(delivery: Delivery): void {
  delivery.wasBegun = true;
  if (delivery.task.todo === 'handle') delivery.task = { ...delivery.task, alone: true };
}

/** Looks stand alone in their units. */
function deliveriesOf(unit: Unit<LaneItem>): Unit<Delivery> {
  return { ...unit, items: unit.items.filter((item): item is Delivery => !isLook(item)) };
}
