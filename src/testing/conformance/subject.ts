import type { ChildProcess } from 'node:child_process';
import type { FetchPosition, Log, TargetLog, TopicOptions } from '../../broker/log.ts';
import type { NewRecord } from '../../broker/record.ts';

/** A log under test, and what the suite needs to bring about that no reader can. */
export interface LogSubject {
  readonly log: Log;
  /** Creates a topic. */
  createTopic(topic: string, partitions: number, options?: TopicOptions): Promise<void>;
  /** Appends records to a partition, in this order; resolves once they are as durable as the log promises. */
  append(topic: string, partition: number, records: readonly NewRecord[]): Promise<void>;
  /** Removes the records of a partition below an offset, as retention does. Absent: nothing is ever removed. */
  removeBefore?(position: FetchPosition): Promise<void>;
  /**
   * Appends records whose place is taken but which no reader can see yet, as while a commit is under way. The function that
   * it resolves to makes them visible. Absent: what has a place can be seen.
   */
  appendHidden?(topic: string, partition: number, records: readonly NewRecord[]): Promise<() => Promise<void>>;
  /** Does to a topic, made with `compaction`, what the log does some time. For logs that declare `compaction`. */
  compact?(topic: string): Promise<void>;
  /**
   * Starts a process that opens the same log and calls `runConformanceProcess`, with the channel that `fork` of
   * `node:child_process` gives it. The suite stops, resumes and kills it. Absent: no other process can reach this log.
   */
  startProcess?(): Promise<ChildProcess>;
  /** Closes the log and everything that was opened for it. */
  close(): Promise<void>;
}

/** A subject made of a log that forwarders append to: it appends as a forwarder does, at the offset where a partition ends. */
export function targetLogSubject(
  log: TargetLog,
  more: Partial<Pick<LogSubject, 'removeBefore' | 'compact' | 'startProcess'>> = {},
): LogSubject {
  const appender = new Appender(log);
  return {
    log,
    createTopic: (topic, partitions, options) => log.createTopic(topic, partitions, options),
    append: (topic, partition, records) => appender.append(topic, partition, records),
    close: () => log.close(),
    ...more,
  };
}

/** One append of a partition at a time. */
class Appender {
  readonly #log: TargetLog;
  readonly #last = new Map<string, Promise<void>>();

  constructor(log: TargetLog) {
    this.#log = log;
  }

  append(topic: string, partition: number, records: readonly NewRecord[]): Promise<void> {
    const name = `${topic}/${partition}`;
    const before = this.#last.get(name) ?? Promise.resolve();
    const appended = before.then(() => this.#append(topic, partition, records));
    this.#last.set(
      name,
      appended.catch(() => undefined),
    );
    return appended;
  }

  async #append(topic: string, partition: number, records: readonly NewRecord[]): Promise<void> {
    const ends = await this.#log.ends(topic);
    await this.#log.append({ topic, partition, offset: ends[partition]?.end ?? 0n, records });
  }
}
