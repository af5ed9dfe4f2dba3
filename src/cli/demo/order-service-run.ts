import type pg from 'pg';
import { pause } from '../../base/signal.ts';
import type { RelayMode } from '../../daemon/index.ts';
import { CommandFailure } from '../failure.ts';
import type { Mark } from './chart.ts';
import type { ChildService } from './child-service.ts';
import type { ConsumerSettings } from './consumer-process.ts';
import type { Crew } from './crew.ts';
import { isDrained, readFigures } from './figures.ts';
import { formatCount, formatSeconds } from './format.ts';
import { settingsEnv } from './parent-link.ts';
import type { Progress } from './progress.ts';
import { RelayProcess } from './relay-process.ts';
import { StallWatch } from './stall-watch.ts';
import { waitUntil } from './wait-until.ts';
import type { WriterSettings } from './writer-process.ts';

export interface OrderServiceRunOptions {
  readonly databaseUrl: string;
  readonly seconds: number;
  readonly writers: number;
  readonly rate: number;
  readonly pool: pg.Pool;
  readonly crew: Crew;
  readonly progress: Progress;
  /** Ends the run before its end. */
  readonly signal: AbortSignal;
}

/** Short, so that a takeover can be watched; and not so short that a busy machine loses leases by itself. */
const LEASE_MS = 3_000;
const START_TIMEOUT_MS = 60_000;
/** How long nothing at all may happen while consumers catch up. */
const STALL_MS = 30_000;
/** A switched relay runs at least so long before the next thing happens, so that it has something to show. */
const LEAST_SWITCHED_MS = 1_000;

/** One run of the order service, from its first process to its last: the play of which everything else is stage. */
export class OrderServiceRun {
  readonly kills: string[] = [];
  readonly marks: Mark[] = [];
  readonly #options: OrderServiceRunOptions;
  readonly #relay: RelayProcess;
  readonly #consumers = new Map<string, ChildService>();
  #writers: readonly ChildService[] = [];
  #writingSinceMs = 0;
  #readingsBefore = 0;

  constructor(options: OrderServiceRunOptions) {
    this.#options = options;
    this.#relay = new RelayProcess(options.crew, options.databaseUrl, LEASE_MS);
  }

  /** How the relay said it was reading while writers wrote, in order, each once in a row. */
  get modes(): RelayMode[] {
    const readings = this.#relay.readings.slice(this.#readingsBefore);
    return readings.map(({ mode }) => mode).filter((mode, nth, modes) => mode !== modes[nth - 1]);
  }

  /** When the run was first disturbed, in Unix milliseconds. */
  get disturbedAtMs(): number {
    return this.marks[0]?.atMs ?? Date.now();
  }

  async play(): Promise<void> {
    await this.#startRelay('wal');
    await this.#startConsumers();
    await this.#startWriters();

    await this.#untilWritten(0.2);
    await this.#killRelay();
    await this.#untilWritten(0.35);
    await this.#killConsumer('consumer 2');
    await this.#untilWritten(0.6);
    await this.#switchRelay('polling');
    await this.#untilWritten(0.8);
    await this.#switchRelay('wal');
    await this.#untilWritten(1);

    await this.#stopWriters();
    await this.#drain();
    await this.#stopConsumersAndRelay();
  }

  async #startRelay(mode: RelayMode): Promise<void> {
    this.#relay.start(mode);
    await this.#untilRelayReads(mode);
    this.#say(`${this.#describeRelay()} ${this.#relay.description}`);
  }

  async #startConsumers(): Promise<void> {
    await Promise.all(['consumer 1', 'consumer 2'].map((name) => this.#startConsumer(name)));
    const processes = [...this.#consumers].map(([name, { pid }]) => `${name} (process ${pid})`);
    this.#say(`${processes.join(' and ')} share the groups invoices and customer-orders`);
  }

  async #startConsumer(name: string): Promise<void> {
    const { crew, databaseUrl } = this.#options;
    const settings: ConsumerSettings = { databaseUrl, name, leaseMs: LEASE_MS };
    const child = crew.start({ name, program: './consumer-process', env: settingsEnv(settings) });
    this.#consumers.set(name, child);
    await this.#ready(child);
  }

  async #startWriters(): Promise<void> {
    const { crew, databaseUrl, writers, rate } = this.#options;
    this.#writers = Array.from({ length: writers }, (_, nth) => {
      const name = `writer ${nth + 1}`;
      const settings: WriterSettings = { databaseUrl, name, ordersPerSecond: rate / writers };
      return crew.start({ name, program: './writer-process', env: settingsEnv(settings) });
    });
    await Promise.all(this.#writers.map((writer) => this.#ready(writer)));
    this.#writingSinceMs = performance.now();
    this.#readingsBefore = this.#relay.readings.length - 1;
    this.#say(`${writers} writers place orders, each in one transaction with its event`);
  }

  async #ready(child: ChildService): Promise<void> {
    await waitUntil(() => child.isReady, this.#within(START_TIMEOUT_MS, `The ${child.name} is not ready`));
  }

  /** Waits until that part of the writing time has passed. */
  async #untilWritten(part: number): Promise<void> {
    const { seconds, signal } = this.#options;
    await pause(this.#writingSinceMs + part * seconds * 1_000 - performance.now(), signal);
    signal.throwIfAborted();
  }

  async #killRelay(): Promise<void> {
    this.#kill(this.#describeRelay(), 'relay');
    const killedAtMs = performance.now();
    await this.#relay.kill();
    this.#relay.start('wal');
    await this.#untilRelayReads('wal');
    this.#mark(`${this.#describeRelay()} has taken over after ${since(killedAtMs)} and ${this.#relay.description}`);
  }

  async #killConsumer(name: string): Promise<void> {
    const child = this.#consumers.get(name);
    if (child === undefined) throw new CommandFailure(`There is no ${name}.`);
    this.#kill(`${name} (process ${child.pid})`, name);
    const killedAtMs = performance.now();
    const held = await this.#countPartitions(name);
    await child.kill();
    await waitUntil(
      async () => (await this.#countPartitions(name)) === 0,
      this.#within(START_TIMEOUT_MS, `Nobody has taken over from ${name}`),
    );
    this.#mark(
      `its ${held} partitions have been taken over after ${since(killedAtMs)}, lease ${formatSeconds(LEASE_MS)}`,
    );
    await this.#startConsumer(name);
    this.#say(`${name} is back (process ${this.#consumers.get(name)?.pid ?? 0})`);
  }

  async #switchRelay(mode: RelayMode): Promise<void> {
    const stoppedAtMs = performance.now();
    await this.#relay.stop();
    this.#relay.start(mode);
    await this.#untilRelayReads(mode);
    const outcome = `after ${since(stoppedAtMs)} ${this.#describeRelay()} ${this.#relay.description}`;
    this.#mark(`relay restarted with --mode ${mode}: ${outcome}`);
    await pause(LEAST_SWITCHED_MS, this.#options.signal);
  }

  async #untilRelayReads(mode: RelayMode): Promise<void> {
    await waitUntil(
      () => this.#relay.isReading(mode),
      this.#within(START_TIMEOUT_MS, 'No relay leads in the wanted mode'),
    );
  }

  async #stopWriters(): Promise<void> {
    const inTime = await Promise.all(this.#writers.map((writer) => writer.stop()));
    if (inTime.includes(false)) throw new CommandFailure('A writer did not end when it was asked to.');
    const { committed } = await readFigures(this.#options.pool);
    this.#mark(`the writers have stopped: ${formatCount(committed)} orders committed`);
  }

  /** Waits until the consumers have caught up, or nothing changes any more: then the tables tell what is missing. */
  async #drain(): Promise<void> {
    const stoppedAtMs = performance.now();
    const stall = new StallWatch(STALL_MS);
    await waitUntil(
      async () => {
        const figures = await readFigures(this.#options.pool);
        stall.see(figures);
        return isDrained(figures) || stall.hasStalled;
      },
      this.#within(Number.POSITIVE_INFINITY, ''),
    );
    const end = stall.hasStalled
      ? `nothing has moved for ${formatSeconds(STALL_MS)}: giving up waiting`
      : 'the consumers have caught up';
    this.#say(`${end}, ${since(stoppedAtMs)} after the last order`);
  }

  async #stopConsumersAndRelay(): Promise<void> {
    await Promise.all([...this.#consumers.values()].map((consumer) => consumer.stop()));
    await this.#relay.stop();
  }

  async #countPartitions(memberId: string): Promise<number> {
    const result = await this.#options.pool.query<{ count: number }>(
      'select count(*)::int as count from tailrace.consumer_cursor where owner = $1',
      [memberId],
    );
    return result.rows[0]?.count ?? 0;
  }

  #describeRelay(): string {
    return `relay (process ${this.#relay.pid})`;
  }

  #kill(description: string, name: string): void {
    this.kills.push(name);
    this.#mark(`kill -9: ${description}`);
  }

  /** Tells something that belongs into the chart as well. */
  #mark(label: string): void {
    this.marks.push({ atMs: Date.now(), label });
    this.#say(label);
  }

  #say(text: string): void {
    this.#options.progress.say(text);
  }

  #within(timeoutMs: number, failure: string): { signal: AbortSignal; timeoutMs: number; failure: string } {
    return { signal: this.#options.signal, timeoutMs, failure };
  }
}

function since(ms: number): string {
  return formatSeconds(performance.now() - ms);
}
