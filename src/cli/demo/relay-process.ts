import type { RelayMode } from '../../daemon/index.ts';
import type { ChildService } from './child-service.ts';
import type { Crew } from './crew.ts';

/** How the relay said that it reads, and why not otherwise. */
export interface RelayReading {
  readonly mode: RelayMode;
  readonly reason?: string;
}

/** `tailrace relay`, as the demo starts, kills and switches it. One at a time. */
export class RelayProcess {
  readonly #crew: Crew;
  readonly #databaseUrl: string;
  readonly #leaseMs: number;
  readonly #readings: RelayReading[] = [];
  #child: ChildService | undefined;
  /** What the running process said last; undefined until it leads. */
  #reading: RelayReading | undefined;

  constructor(crew: Crew, databaseUrl: string, leaseMs: number) {
    this.#crew = crew;
    this.#databaseUrl = databaseUrl;
    this.#leaseMs = leaseMs;
  }

  get pid(): number {
    return this.#child?.pid ?? 0;
  }

  /** What the running process does, as in "it …". */
  get description(): string {
    if (this.#reading === undefined) return 'does not lead';
    const { mode, reason } = this.#reading;
    if (mode === 'wal') return 'reads the write-ahead log';
    return `polls the outbox${reason === undefined ? '' : ` (${reason})`}`;
  }

  /** Whether it leads and reads as wanted, or says why it never will: while it creates its slot, it only polls for now. */
  isReading(wanted: RelayMode): boolean {
    if (this.#reading === undefined) return false;
    const { mode, reason } = this.#reading;
    return mode === wanted || reason?.startsWith('creating the replication slot') !== true;
  }

  /** Everything that the processes said of their reading, in order. */
  get readings(): readonly RelayReading[] {
    return this.#readings;
  }

  start(mode: RelayMode): void {
    this.#reading = undefined;
    this.#child = this.#crew.start({
      name: 'relay',
      program: '../main',
      args: ['relay', '--mode', mode, '--lease-ms', String(this.#leaseMs), '--json'],
      env: { TAILRACE_DATABASE_URL: this.#databaseUrl },
      onLine: (line) => {
        this.#listen(line);
      },
    });
  }

  async kill(): Promise<void> {
    await this.#child?.kill();
    this.#reading = undefined;
  }

  async stop(): Promise<void> {
    await this.#child?.stop();
    this.#reading = undefined;
  }

  /** Its log is lines of JSON; those with the message `status` tell how it reads. */
  #listen(line: string): void {
    const reading = readingOf(line);
    if (reading === undefined) return;
    this.#reading = reading;
    this.#readings.push(reading);
  }
}

function readingOf(line: string): RelayReading | undefined {
  try {
    const entry = JSON.parse(line) as Partial<RelayReading> & { readonly message?: string; readonly state?: string };
    if (entry.message !== 'status' || entry.state !== 'leading' || entry.mode === undefined) return undefined;
    return { mode: entry.mode, ...(entry.reason !== undefined && { reason: entry.reason }) };
  } catch {
    return undefined; // not one of its entries
  }
}
