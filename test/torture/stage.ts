import { dirname, join } from 'node:path';
import { Child } from './child.ts';
import type { TortureCluster } from './cluster.ts';
import type { ConsumerSettings, StatusRequest } from './consumer-process.ts';
import type { Database } from './database.ts';
import type { ArmedPoint } from './fail-points.ts';
import type { History } from './history.ts';
import { Network } from './network.ts';
import { GROUPS } from './groups.ts';
import type { HaltMessage, RefusedMessage, RelaySettings } from './relay-process.ts';
import type { SabotageName } from './sabotage/sabotage.ts';
import { BULK_KEY } from './tables.ts';
import { waitUntil } from './wait-until.ts';
import type { WriterSettings } from './writer-process.ts';

export interface StageOptions {
  readonly cluster: TortureCluster;
  readonly database: Database;
  /** Where the consumers' handlers write, if that is a server of its own. */
  readonly handlers: { readonly cluster: TortureCluster; readonly database: Database } | undefined;
  readonly history: History;
  readonly historyPath: string;
  readonly seed: number;
  readonly sabotage: SabotageName | undefined;
  /** How many transactions a second the writers try together. */
  readonly perSecond: number;
  /** The disk that holds nothing but the server's data, if it has one. */
  readonly disk: string | undefined;
  /** Fires when the run is to end before its end. */
  readonly stop: AbortSignal;
}

/** Short, so that takeovers can be waited for; a busy machine that loses a lease by itself does no harm. */
export const LEASE_MS = 1_500;
export const CONSUMER_LEASE_MS = 3_000;
/** How long a fault waits for what it wants to see. */
export const PATIENCE_MS = 120_000;

const RELAYS = ['relay-1', 'relay-2'];
const EXTRA_RELAYS = ['relay-3', 'relay-4', 'relay-5'];
const ALL_RELAYS = [...RELAYS, ...EXTRA_RELAYS];
const CONSUMERS = ['consumer-1', 'consumer-2'];
/** A process of many members that come and go. */
export const STORM = 'storm';
const WRITERS = ['writer-1', 'writer-2', 'writer-3'];
const LANES = 4;
/** A point that is to be reached so often is none. */
const NEVER = Number.MAX_SAFE_INTEGER;
/** Of messages that faults write; the probe's are below, those of writers above. */
const FIRST_ID = 10_000_000;

/** How the next relay of a name is started. */
export interface Way {
  readonly databaseUrl: string;
  readonly prefix: readonly string[];
}

/** The processes and the server that faults act upon. Whoever ends a process starts it again. */
export class Stage implements AsyncDisposable {
  readonly cluster: TortureCluster;
  readonly database: Database;
  /** The server of the consumers' handlers; the same as of the log, or another one. */
  readonly handlersCluster: TortureCluster;
  /** What the groups know, and what their handlers wrote. */
  readonly handlers: Database;
  readonly history: History;
  readonly stop: AbortSignal;
  readonly disk: string | undefined;
  /** Processes that ended, or relays that halted, without having been asked to. */
  readonly collapses: string[] = [];
  /** Whether consumers may end by themselves now. */
  areConsumersMortal = false;
  /** Faults after which nothing moved any more, or during which it had to and did not. */
  readonly stalls: string[] = [];
  /** Where the database was in danger. */
  readonly dangers: string[] = [];
  /** Messages that were handled, and whose transactions a failover then undid; and those with which that must not happen. */
  readonly phantoms: number[] = [];
  readonly forbiddenPhantoms: number[] = [];
  /** How often relays have halted. */
  halts = 0;
  /** How relays read when they are started. */
  mode: 'wal' | 'polling' = 'wal';
  /** Codes with which a relay may halt now. */
  allowedHalts: readonly string[] = [];
  peakMemoryMiB = 0;
  /** How often relays met a message again that the log holds already, and left it out. */
  refusedDuplicates = 0;
  readonly #options: StageOptions;
  readonly #children = new Map<string, Child>();
  readonly #networks = new Map<string, Network>();
  readonly #ways = new Map<string, Way>();
  readonly #environments = new Map<string, Readonly<Record<string, string>>>();
  readonly #kept = new AsyncDisposableStack();
  #writersStarted = 0;
  #writersAreHeld = false;
  #isRush = false;
  #nextId = FIRST_ID;

  constructor(options: StageOptions) {
    this.#options = options;
    this.cluster = options.cluster;
    this.database = options.database;
    this.handlersCluster = options.handlers?.cluster ?? options.cluster;
    this.handlers = options.handlers?.database ?? options.database;
    this.history = options.history;
    this.stop = options.stop;
    this.disk = options.disk;
  }

  /** Whether the handlers' database is on a server of its own. */
  get hasOwnHandlers(): boolean {
    return this.handlers !== this.database;
  }

  /** How many transactions a second the writers try together. */
  get perSecond(): number {
    return this.#options.perSecond;
  }

  get relays(): Child[] {
    return this.#named(ALL_RELAYS).filter(({ isRunning, name }) => isRunning || RELAYS.includes(name));
  }

  get consumers(): Child[] {
    return this.#named(CONSUMERS);
  }

  get writers(): Child[] {
    return this.#named(WRITERS);
  }

  async startAll(): Promise<void> {
    await Promise.all([...RELAYS, ...CONSUMERS].map((name) => this.start(name)));
    await this.startWriters();
  }

  async startWriters(): Promise<void> {
    await Promise.all(WRITERS.map((name) => this.start(name)));
  }

  async stopWriters(): Promise<void> {
    await Promise.all(this.writers.map((writer) => writer.stop()));
  }

  /** Lets the writers wait, those too that are started later; or go on. In a rush nobody waits. */
  holdWriters(isHeld: boolean): void {
    this.#writersAreHeld = isHeld;
    for (const writer of this.writers) writer.send({ isHeld: isHeld && !this.#isRush });
  }

  /** While `act` runs, the writers try so many transactions a second, and do not wait for the consumers. */
  async rush<Result>(perSecond: number, act: () => Promise<Result>): Promise<Result> {
    const setRate = (rate: number, isRush: boolean): void => {
      this.#isRush = isRush;
      for (const writer of this.writers) writer.send({ perSecond: rate / WRITERS.length });
      this.holdWriters(this.#writersAreHeld);
    };
    setRate(perSecond, true);
    try {
      return await act();
    } finally {
      setRate(this.#options.perSecond, false);
    }
  }

  /** How many messages the groups have yet to handle; an estimate: the effects' sequence also counts those that were undone. */
  async waiting(): Promise<number> {
    const { written } = await this.database.one<{ written: string }>(
      'select coalesce(sum(n), 0) as written from torture.agg where k <> $1',
      [BULK_KEY],
    );
    return Number(written) - (await this.effects()) / GROUPS.length;
  }

  /** Writes down where things stand that do not move: what each consumer is doing, and where each group and session is. */
  async noteStall(): Promise<void> {
    for (const consumer of this.consumers) consumer.send({ ask: 'status' } satisfies StatusRequest);
    const cursors = await this.handlers.query('select * from tailrace.consumer_cursor order by 1, 2, 3');
    const sessions = [await this.#sessions(this.database)];
    if (this.hasOwnHandlers) sessions.push(await this.#sessions(this.handlers));
    this.history.write('stall', 'info', { cursors, sessions });
  }

  #sessions(database: Database): Promise<object[]> {
    return database.query(
      `select pid, application_name, state, wait_event_type, wait_event, pg_blocking_pids(pid) as blocked_by,
         clock_timestamp() - state_change as since, left(query, 200) as query
       from pg_stat_activity where backend_type = 'client backend'`,
    );
  }

  /** How many messages have been committed. */
  async commits(): Promise<number> {
    const { written } = await this.database.one<{ written: string }>('select sum(n) as written from torture.agg');
    return Number(written);
  }

  /** Ends every relay and consumer in good order, and starts new ones. */
  async restartReaders(): Promise<void> {
    await Promise.all([...this.relays, ...this.consumers].map((child) => this.#stop(child)));
    await Promise.all([...RELAYS, ...CONSUMERS].map((name) => this.start(name)));
  }

  async stopReaders(): Promise<void> {
    await Promise.all([...this.relays, ...this.consumers].map((child) => this.#stop(child)));
  }

  async startRelays(): Promise<void> {
    await Promise.all(RELAYS.map((name) => this.start(name)));
  }

  /** Ends one in good order and starts it again. */
  async restart(child: Child): Promise<Child> {
    await this.end(child);
    return this.start(child.name);
  }

  /** Ends one in good order. */
  async end(child: Child): Promise<void> {
    this.watchMemory();
    await this.#stop(child);
  }

  async stopRelays(): Promise<void> {
    this.watchMemory();
    await Promise.all(this.relays.map((child) => this.#stop(child)));
  }

  async killRelays(): Promise<void> {
    this.watchMemory();
    await Promise.all(this.relays.map((child) => child.kill()));
  }

  /** More relays than there are always. */
  async startExtraRelays(): Promise<Child[]> {
    return Promise.all(EXTRA_RELAYS.map((name) => this.start(name)));
  }

  async endExtraRelays(): Promise<void> {
    await Promise.all(this.#named(EXTRA_RELAYS).map((child) => this.#stop(child)));
  }

  async #stop(child: Child): Promise<void> {
    if (!(await child.stop()))
      this.collapses.push(`${child.name} had to be killed: it did not end when it was asked to`);
  }

  /** Starts a process of this name; the former one has ended. Resolves when it works. */
  async start(name: string): Promise<Child> {
    const child = this.#spawn(name);
    this.#children.set(name, child);
    const timer = setTimeout(() => {
      this.collapses.push(`${name} did not begin its work within ${PATIENCE_MS} ms`);
      void child.kill();
    }, PATIENCE_MS);
    await child.ready;
    clearTimeout(timer);
    return child;
  }

  /** Lets those go on that a fault has struck after it had given up, and starts those again that it has killed then. */
  async mend(): Promise<void> {
    for (const child of [...this.#named(RELAYS), ...this.consumers, ...this.writers]) {
      if (!child.isRunning) await this.start(child.name);
      else if (child.isFrozen) child.thaw();
    }
  }

  /** Kills a process and starts it again. */
  async killAndStart(child: Child): Promise<Child> {
    this.watchMemory();
    await child.kill();
    return this.start(child.name);
  }

  /**
   * Asks a process for an action at a point of its work. Resolves true once it has happened; false when it took too long, or
   * when `isInVain` said that it would not happen any more.
   */
  async strike(child: Child, point: ArmedPoint, isInVain?: () => Promise<boolean>): Promise<boolean> {
    if (point.action === 'kill') child.expectEnd();
    else child.guard();
    child.send(point);
    const hasStruck = (): boolean => !child.isRunning || child.isFrozen;
    await waitUntil(async () => hasStruck() || ((await isInVain?.()) ?? false), PATIENCE_MS, this.stop);
    if (hasStruck()) return true;
    child.send({ ...point, after: NEVER });
    return false;
  }

  /**
   * The same at the relay that leads. On a busy machine another one may lead before the point is reached: then it is asked.
   * Returns the relay that was struck.
   */
  async strikeLeader(point: ArmedPoint): Promise<Child | undefined> {
    const deadline = performance.now() + PATIENCE_MS;
    const asked = new Set<Child>();
    while (performance.now() < deadline && !this.stop.aborted) {
      const leader = await this.someLeader();
      asked.add(leader);
      const leadsNoMore = async (): Promise<boolean> => {
        const now = await this.leader();
        return now !== undefined && now !== leader;
      };
      await this.strike(leader, point, leadsNoMore);
      const struck = [...asked].find((relay) => !relay.isRunning || relay.isFrozen);
      if (struck !== undefined) return struck;
    }
    return undefined;
  }

  /** The relay that holds the lease now, if it runs. */
  async leader(): Promise<Child | undefined> {
    const [row] = await this.database.query<{ holder: string }>(
      'select holder from tailrace.relay_lease where expires_at > clock_timestamp()',
    );
    return this.relays.find(({ name, isRunning }) => isRunning && name === row?.holder);
  }

  /** The same, waiting for one. */
  async someLeader(): Promise<Child> {
    let leader: Child | undefined;
    await waitUntil(async () => (leader = await this.leader()) !== undefined, PATIENCE_MS, this.stop);
    if (leader === undefined) throw new Error('No relay holds the lease.');
    return leader;
  }

  /** Waits until somebody else has the lease that this relay had, or had had before. Returns whether that is so. */
  takenFrom(name: string): Promise<boolean> {
    return waitUntil(
      async () => {
        const [row] = await this.database.query<{ holder: string }>(
          'select holder from torture.lease order by epoch desc limit 1',
        );
        return row !== undefined && row.holder !== name;
      },
      PATIENCE_MS,
      this.stop,
    );
  }

  /** Whether no partition of any group belongs to this member. */
  async ownsNothing(member: string): Promise<boolean> {
    const { owned } = await this.handlers.one<{ owned: string }>(
      'select count(*) as owned from tailrace.consumer_cursor where owner = $1',
      [member],
    );
    return owned === '0';
  }

  /** How often partitions have changed their owner. */
  async owners(): Promise<number> {
    const { epochs } = await this.handlers.one<{ epochs: string }>(
      'select coalesce(sum(epoch), 0) as epochs from tailrace.consumer_cursor',
    );
    return Number(epochs);
  }

  /** How many effects there are; their sequence's value, since counting them takes long. */
  async effects(): Promise<number> {
    const { last } = await this.handlers.one<{ last: string }>(
      `select coalesce(pg_sequence_last_value('torture.effect_seq_seq'), 0) as last`,
    );
    return Number(last);
  }

  /** The number of the last append. */
  async lastBatch(): Promise<number> {
    const { last } = await this.database.one<{ last: string }>(
      'select coalesce(max(seq), 0) as last from torture.batch',
    );
    return Number(last);
  }

  /** The first of so many ids that nobody else uses. */
  takeIds(count: number): number {
    this.#nextId += count;
    return this.#nextId - count;
  }

  /** A relay's way to the server. */
  networkOf(name: string): Network {
    const network = this.#networks.get(name);
    if (network === undefined) throw new Error(`${name} has no network.`);
    return network;
  }

  async openNetworks(): Promise<void> {
    for (const name of ALL_RELAYS) {
      const socketPath = join(dirname(this.#options.historyPath), `${name}.socket`);
      this.#networks.set(name, await Network.open(this.cluster.url, socketPath));
    }
  }

  /** Relays of this name are started like that from now on; without a way, as always. */
  setWay(name: string, way?: Way): void {
    if (way === undefined) this.#ways.delete(name);
    else this.#ways.set(name, way);
  }

  /** Processes of this name are started with these variables from now on; without any, as always. */
  setEnvironment(name: string, environment?: Readonly<Record<string, string>>): void {
    if (environment === undefined) this.#environments.delete(name);
    else this.#environments.set(name, environment);
  }

  childOf(name: string): Child | undefined {
    return this.#children.get(name);
  }

  /** Disposes of it at the end of the run, if nobody has done so by then. */
  keep<Thing extends AsyncDisposable>(thing: Thing): Thing {
    return this.#kept.use(thing);
  }

  /** Takes the relays' highest use of memory in; it leaves with the process. */
  watchMemory(): void {
    for (const relay of this.relays) this.peakMemoryMiB = Math.max(this.peakMemoryMiB, relay.peakMemoryMiB);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all([...this.#children.values()].map((child) => child.kill()));
    await this.#kept.disposeAsync();
    for (const network of this.#networks.values()) await network[Symbol.asyncDispose]();
  }

  #named(names: readonly string[]): Child[] {
    return names.flatMap((name) => this.#children.get(name) ?? []);
  }

  #spawn(name: string): Child {
    const common = { name, historyPath: this.#options.historyPath };
    const { sabotage, seed, perSecond } = this.#options;
    const environment = this.#environments.get(name) ?? {};
    const onCollapse = (child: Child): void => {
      if (this.areConsumersMortal && CONSUMERS.includes(name)) return;
      this.history.write('collapse', 'info', { name, lastWords: child.lastWords });
      this.collapses.push(`${name} ended by itself: ${child.lastWords}`);
    };
    if (ALL_RELAYS.includes(name)) {
      const { databaseUrl, prefix } = this.#ways.get(name) ?? { databaseUrl: this.networkOf(name).url, prefix: [] };
      const settings: RelaySettings = {
        ...common,
        databaseUrl,
        mode: this.mode,
        leaseMs: LEASE_MS,
        sabotage,
      };
      const onMessage = (message: unknown): void => this.#heard(name, message);
      return new Child({ name, program: 'relay-process', settings, prefix, environment, onCollapse, onMessage });
    }
    const databaseUrl = this.cluster.url;
    if (CONSUMERS.includes(name) || name === STORM) {
      const isRestless = name === STORM;
      const handlersUrl = this.handlersCluster.url;
      const settings: ConsumerSettings = {
        ...common,
        databaseUrl,
        handlersUrl,
        leaseMs: CONSUMER_LEASE_MS,
        sabotage,
        isRestless,
      };
      return new Child({ name, program: 'consumer-process', settings, environment, onCollapse });
    }
    const settings: WriterSettings = {
      ...common,
      databaseUrl,
      seed,
      number: ++this.#writersStarted,
      isHeld: this.#writersAreHeld,
      lanes: LANES,
      perSecond: perSecond / WRITERS.length,
    };
    return new Child({ name, program: 'writer-process', settings, environment, onCollapse });
  }

  #heard(name: string, message: unknown): void {
    if (typeof message !== 'object' || message === null) return;
    if ('refused' in message) this.refusedDuplicates += (message as RefusedMessage).refused;
    if (!('halted' in message)) return;
    const { halted } = message as HaltMessage;
    this.halts += 1;
    if (!this.allowedHalts.includes(halted)) this.collapses.push(`${name} halted: ${halted}`);
  }
}
