import { TailraceError } from '../base/errors.ts';
import type { LogRecord } from '../broker/record.ts';
import type { AssignedPartition } from './assigned-partition.ts';
import { sizeOf } from './delivery.ts';
import { Fetcher, type FetchLimits } from './fetcher.ts';
import type { HandlerTransactions } from './handler-transaction.ts';
import { InboxKeeper } from './inbox-keeper.ts';
import { InboxTable } from './inbox-table.ts';
import type { InboxWindow } from './inbox-window.ts';
import type { ConsumerSettings } from './options.ts';

/** How much is stored in one transaction. */
const MOST_STORED = { records: 2_000, bytes: 4_000_000 };

/** What the inbox asks and tells. */
export interface InboxEvents {
  /** The partitions that this member owns. */
  partitions(): readonly AssignedPartition[];
  /** Whether handlers may begin something of a partition now. */
  mayBegin(partition: AssignedPartition): boolean;
  /** Whether a topic is in the log. */
  exists(topic: string): boolean;
  /** Records for handlers, in order. */
  accept(partition: AssignedPartition, records: readonly LogRecord[]): void;
  /** What is stored of partitions has become known. */
  ready(): void;
  /** A partition's assignment has ended. */
  lost(partition: AssignedPartition): void;
}

/**
 * The inbox of this member's partitions. What is stored there, by whatever owner, is handed to handlers in place of the log's
 * records. A consumer that stores first also receives: it fetches from the log, stores, and hands nothing else to handlers.
 */
export class Inbox {
  readonly #settings: ConsumerSettings;
  readonly #table: InboxTable;
  readonly #transactions: HandlerTransactions;
  readonly #events: InboxEvents;
  readonly #keeper: InboxKeeper;
  readonly #reader: Fetcher<AssignedPartition>;
  readonly #receiver: Fetcher<InboxWindow> | undefined;

  constructor(settings: ConsumerSettings, transactions: HandlerTransactions, events: InboxEvents) {
    this.#settings = settings;
    this.#transactions = transactions;
    this.#events = events;
    this.#table = new InboxTable(settings.schema, settings.group);
    this.#keeper = new InboxKeeper(settings, this.#table, transactions, {
      partitions: () => events.partitions(),
      lost: (partition) => events.lost(partition),
      ready: () => {
        this.reassigned();
        events.ready();
      },
    });
    this.#reader = new Fetcher<AssignedPartition>(settings, {
      aim: 'read the inbox',
      partitions: () => events.partitions().filter((each) => this.#isReadable(each) && events.mayBegin(each)),
      fetch: (partitions, limits) => this.#read(partitions, limits),
      accept: (partition, records) => {
        events.accept(partition, records);
        partition.inbox.passGap();
      },
    });
    this.#receiver = settings.inbox && this.#makeReceiver(settings.inbox);
  }

  /** What keeps records from being stored or read, while something does. */
  get problem(): string | undefined {
    return this.#keeper.problem ?? this.#reader.problem ?? this.#receiver?.problem;
  }

  /** Offsets that were passed over, since retention had removed what was there before it was stored. */
  get lost(): number {
    return this.#receiver?.lost ?? 0;
  }

  /** Whether handlers get a partition's next records from the log. */
  isPassed({ inbox }: AssignedPartition): boolean {
    return this.#receiver === undefined && inbox.isOfLog && !inbox.isAhead;
  }

  start(): void {
    this.#keeper.start();
    this.#reader.start();
    this.#receiver?.start();
  }

  /** There are partitions that were not there before. */
  taken(): void {
    this.#keeper.wake();
    this.reassigned();
  }

  /** There are other partitions to read or to receive than before. */
  reassigned(): void {
    this.#reader.reassigned();
    this.#receiver?.reassigned();
  }

  /** Something of a partition was handled. */
  freed(partition: AssignedPartition): void {
    if (this.#isReadable(partition)) this.#reader.freed(partition);
    this.#receiver?.freed(partition.inbox);
  }

  async stop(): Promise<void> {
    await Promise.all([this.#reader.stop(), this.#receiver?.stop(), this.#keeper.stop()]);
  }

  #isReadable({ inbox }: AssignedPartition): boolean {
    return inbox.isReadable && inbox.isAhead;
  }

  async #read(
    partitions: readonly AssignedPartition[],
    { maxRecords, maxRecordsEach, maxBytes }: FetchLimits,
  ): Promise<LogRecord[]> {
    const found: LogRecord[] = [];
    let bytes = 0;
    for (const partition of partitions) {
      if (found.length >= maxRecords || bytes >= maxBytes) break;
      const range = {
        from: partition.fetchPosition.offset,
        below: partition.inbox.to,
        maxRecords: Math.min(maxRecordsEach, maxRecords - found.length),
        maxBytes: maxBytes - bytes,
      };
      const records = await this.#transactions.ask(partition, (client) => this.#table.read(client, partition, range));
      if (records.length === 0 && partition.state === 'owned') throw missing(partition, range.from);
      bytes += records.reduce((sum, record) => sum + sizeOf(record), 0);
      found.push(...records);
    }
    return found;
  }

  #makeReceiver({ maxRecords, maxBytes }: NonNullable<ConsumerSettings['inbox']>): Fetcher<InboxWindow> {
    const { log } = this.#settings;
    const prefetch = { records: maxRecords, bytes: maxBytes };
    return new Fetcher<InboxWindow>(
      { ...this.#settings, prefetch },
      {
        aim: 'receive from the log and store',
        most: MOST_STORED,
        partitions: () => this.#receiving().map(({ inbox }) => inbox),
        fetch: (windows, limits) =>
          log.fetch(
            windows.map(({ fetchPosition }) => fetchPosition),
            limits,
          ),
        accept: (window, records) => this.#store(window, records),
        halted: (window) => {
          window.doubt();
          this.#keeper.wake();
        },
      },
    );
  }

  #receiving(): AssignedPartition[] {
    return this.#events
      .partitions()
      .filter(({ topic, inbox }) => inbox.isOfLog && inbox.isCounted && this.#events.exists(topic));
  }

  async #store(window: InboxWindow, records: readonly LogRecord[]): Promise<void> {
    const partition = this.#events.partitions().find(({ inbox }) => inbox === window);
    const last = records.at(-1);
    if (partition === undefined || last === undefined) return;
    const sizes = records.map(sizeOf);
    const stored = await this.#transactions.run(partition, { of: 'nothing' }, async (tx) => {
      if (!(await this.#table.store(tx, partition, window.to, records, sizes))) throw moved(partition);
    });
    if (stored.outcome === 'assignment-lost') this.#events.lost(partition);
    else if (stored.outcome === 'failed') {
      window.isCounted = false; // it may have been committed all the same
      this.#keeper.wake();
      throw stored.error;
    } else {
      window.add(
        last.offset + 1n,
        records.length,
        sizes.reduce((sum, bytes) => sum + bytes, 0),
      );
      this.#keeper.wake();
      this.#reader.reassigned();
    }
  }
}

function moved({ topic, partition }: AssignedPartition): TailraceError {
  return new TailraceError(
    'ASSIGNMENT_LOST',
    `What is stored of ${topic} partition ${partition} ends elsewhere than this member knows. It looks again.`,
    { retryable: true },
  );
}

function missing({ topic, partition, inbox }: AssignedPartition, offset: bigint): TailraceError {
  return new TailraceError(
    'DANGLING_ENTRY',
    `Records of ${topic} partition ${partition} are gone from the inbox, from offset ${offset} on and below ${inbox.to}, that were to be there. Put the rows back, or move the group past them.`,
    { details: { topic, partition, offset } },
  );
}
