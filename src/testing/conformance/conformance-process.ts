import pg from 'pg';
import { messageOf } from '../../base/errors.ts';
import type { Consumer } from '../../consumer/consumer.ts';
import { listenToPool } from '../../postgres/pool-listener.ts';
import { clientUrl } from '../../postgres/tls.ts';
import { Cleanup } from '../cleanup.ts';
import { countingMember, type Count } from './counting-member.ts';
import type { FeedRequest, MemberRequest, MemberStatus, Question, Told } from './process-messages.ts';
import { newRecord } from './scene.ts';
import type { LogSubject } from './subject.ts';

/** The few things that are used of Node's `process`. */
export interface ConformanceHost {
  on(event: 'message', listener: (message: unknown) => void): unknown;
  on(event: 'disconnect', listener: () => void): unknown;
  readonly send?: ((message: object) => unknown) | undefined;
  exit(code: number): unknown;
}

/**
 * Makes this process one that `LogSubject.startProcess` gives: it opens the same log and does what the suite asks, over the
 * channel of `fork`. It ends with the suite.
 *
 * ```ts
 * runConformanceProcess(process, async () => targetLogSubject(await myLog({ url: process.argv[2] })));
 * ```
 */
export function runConformanceProcess(host: ConformanceHost, open: () => Promise<LogSubject>): void {
  const tell = (told: Told): void => void host.send?.(told);
  const work = new ProcessWork(open, tell);
  host.on('disconnect', () => void host.exit(1));
  host.on('message', (message) => {
    const question = message as Question;
    work.answer(question).then(
      (status) => {
        tell({ tell: 'done', id: question.id, ...(status !== undefined && { status }) });
      },
      (error: unknown) => {
        tell({ tell: 'failed', id: question.id, why: messageOf(error) });
      },
    );
  });
  tell({ tell: 'ready' });
}

/** What one process does: it is a member, or appends. */
class ProcessWork {
  readonly #open: () => Promise<LogSubject>;
  readonly #tell: (told: Told) => void;
  readonly #cleanup = new Cleanup();
  readonly #going = Promise.withResolvers<undefined>();
  #opened: Promise<LogSubject> | undefined;
  #member: Consumer | undefined;

  constructor(open: () => Promise<LogSubject>, tell: (told: Told) => void) {
    this.#open = open;
    this.#tell = tell;
  }

  async answer(question: Question): Promise<MemberStatus | undefined> {
    if (question.ask === 'status') return this.#status();
    await this.#do(question);
    return undefined;
  }

  async #do(question: Exclude<Question, { readonly ask: 'status' }>): Promise<void> {
    switch (question.ask) {
      case 'join':
        return this.#join(question.member);
      case 'go on':
        this.#going.resolve(undefined);
        return;
      case 'feed':
        return this.#feed(question.feed);
      case 'stop':
        return this.#cleanup.run();
    }
  }

  async #join({ topic, connectionString, stayFrom = Infinity, ...options }: MemberRequest): Promise<void> {
    const { log } = await this.#subject();
    const database = new pg.Pool({ connectionString: clientUrl(connectionString), max: 10 });
    listenToPool(database);
    this.#cleanup.add(() => database.end());
    let staying: Count | undefined;
    const stay = async (count: Count): Promise<void> => {
      if (staying !== count) return;
      this.#tell({ tell: 'inside' });
      await this.#going.promise;
    };
    const sign = (count: Count): string => {
      if (staying !== undefined || count.n < stayFrom) return options.memberId;
      staying = count;
      return `${options.memberId}, staying`;
    };
    this.#member = countingMember(topic, { log, database, ...options }, stay, sign);
    const member = this.#member;
    this.#cleanup.add(() => member.stop());
    await member.start();
  }

  #status(): MemberStatus {
    const assignments = this.#member?.status().assignments ?? [];
    const owned = assignments.filter(({ state }) => state === 'owned');
    return { owned: owned.map(({ partition, epoch }) => ({ partition, epoch: String(epoch) })) };
  }

  async #feed({ topic, partition, records, batch }: FeedRequest): Promise<void> {
    const subject = await this.#subject();
    for (let at = 0; at < records.length; at += batch) {
      const some = records.slice(at, at + batch);
      await subject.append(
        topic,
        partition,
        some.map((fed) => newRecord(fed)),
      );
      this.#tell({ tell: 'appended', count: at + some.length });
    }
  }

  #subject(): Promise<LogSubject> {
    this.#opened ??= this.#open().then((subject) => {
      this.#cleanup.add(() => subject.close());
      return subject;
    });
    return this.#opened;
  }
}
