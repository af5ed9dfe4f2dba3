import assert from 'node:assert/strict';
import type { ChildProcess } from 'node:child_process';
import { TailraceError } from '../../base/errors.ts';
import type { Ask, FeedRequest, MemberRequest, MemberStatus, Told } from './process-messages.ts';
import type { Scene } from './scene.ts';

interface Waiting {
  readonly resolve: (told: Told) => void;
  readonly reject: (error: Error) => void;
}

/** A process that the subject has started, as a case sees it. */
export class OtherProcess {
  /** Resolves once a handler of it stays inside of its transaction. Rejects if it ends before. */
  readonly inside: Promise<void>;
  readonly #process: ChildProcess;
  readonly #ended: Promise<void>;
  readonly #waiting = new Map<number | 'ready' | 'inside', Waiting>();
  #asked = 0;
  #appended = 0;
  #onAppended: (count: number) => void = () => undefined;

  private constructor(process: ChildProcess) {
    this.#process = process;
    this.#ended = new Promise((resolve) => {
      process.once('exit', () => resolve());
      process.once('error', () => resolve()); // it could not be started
    });
    process.on('message', (message) => this.#hear(message as Told));
    this.inside = this.#expect('inside').then(() => undefined);
    this.inside.catch(() => undefined); // a case may not wait for it
    void this.#ended.then(() => this.#giveUp());
  }

  /** Starts one; what is left of it is killed with the scene. */
  static async start({ subject, cleanup }: Scene): Promise<OtherProcess> {
    assert.ok(subject.startProcess !== undefined);
    const other = new OtherProcess(await subject.startProcess());
    cleanup.add(() => other.kill());
    await other.#expect('ready');
    return other;
  }

  /** Makes it a member of a group; resolves once it has joined. */
  async join(member: MemberRequest): Promise<void> {
    await this.#ask({ ask: 'join', member });
  }

  async status(): Promise<MemberStatus> {
    const told = await this.#ask({ ask: 'status' });
    return told.tell === 'done' ? (told.status ?? { owned: [] }) : { owned: [] };
  }

  /** Appends; resolves once all of it was acknowledged. `onAppended` is told of what was so far. */
  async feed(feed: FeedRequest, onAppended: (count: number) => void = () => undefined): Promise<void> {
    this.#appended = 0;
    this.#onAppended = onAppended;
    await this.#ask({ ask: 'feed', feed });
  }

  /** How many records of the last feed were acknowledged, as far as it has said. */
  get appended(): number {
    return this.#appended;
  }

  /** Lets the handler that stays inside go on. A process that is paused hears it when it is resumed. */
  goOn(): void {
    this.#ask({ ask: 'go on' }).catch(() => undefined); // it may be killed before it answers
  }

  /** As a machine does that stops: nothing of it runs. Its connections stay. */
  pause(): void {
    this.#process.kill('SIGSTOP');
  }

  resume(): void {
    this.#process.kill('SIGCONT');
  }

  /** Leaves the group, closes the log and ends. */
  async stop(): Promise<void> {
    await this.#ask({ ask: 'stop' });
    await this.kill();
  }

  /** Without a word, as by `kill -9`. Resolves once it is gone, paused or not. */
  async kill(): Promise<void> {
    this.#process.kill('SIGKILL');
    await this.#ended;
  }

  #ask(ask: Ask): Promise<Told> {
    const id = ++this.#asked;
    const answered = this.#expect(id);
    if (this.#process.connected)
      this.#process.send({ ...ask, id }, () => undefined); // one that has ended gives up
    else this.#giveUp();
    return answered;
  }

  #expect(what: number | 'ready' | 'inside'): Promise<Told> {
    return new Promise((resolve, reject) => this.#waiting.set(what, { resolve, reject }));
  }

  #hear(told: Told): void {
    if (told.tell === 'appended') {
      this.#appended = told.count;
      this.#onAppended(told.count);
      return;
    }
    const what = 'id' in told ? told.id : told.tell;
    const waiting = this.#waiting.get(what);
    this.#waiting.delete(what);
    if (told.tell === 'failed') waiting?.reject(new Error(`A process failed: ${told.why}`));
    else waiting?.resolve(told);
  }

  #giveUp(): void {
    const { exitCode, signalCode } = this.#process;
    const how = signalCode ?? `exit code ${exitCode ?? 'unknown'}`;
    for (const { reject } of this.#waiting.values())
      reject(new TailraceError('STOPPED', `The process has ended (${how}), and was asked something.`));
    this.#waiting.clear();
  }
}
