import type pg from 'pg';
import { FrontendMessages } from './frontend-messages.ts';

/** A statement of a round trip. Its text names the types of its parameters, as in `$1::int`. */
export interface Statement {
  /** Names it in the session, where it is prepared once. */
  readonly name: string;
  readonly text: string;
  readonly values: readonly (string | null)[];
}

/** What the server wrote for each column. */
export type TextRow = readonly (string | null)[];

/** The rows of a statement. Where a client cannot send it prepared, only columns of the type text are as the server wrote them. */
export type TextRows = readonly TextRow[];

/**
 * Sends statements together and waits for all their answers: one round trip, and each of them is parsed and planned once in
 * a session. If one fails, those behind it are not run. Answers the rows of each.
 *
 * @see https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-EXT-QUERY
 */
export class RoundTrips {
  /** What is prepared, by session. */
  readonly #prepared = new WeakMap<object, Set<string>>();

  /**
   * `isSession`: whether the client leads to one session throughout, as it does not behind a pooler; else the statements go
   * as text, as they do where the client cannot send them otherwise.
   */
  run(client: pg.ClientBase, isSession: boolean, statements: readonly Statement[]): Promise<TextRows[]> {
    if (!isSession || !canSubmit(client)) return runAsText(client, statements);
    return ask(client, statements, this.#preparedOn(client));
  }

  /** Whether {@link runBoth} can be used with a client. */
  canRunBoth(client: pg.ClientBase, isSession: boolean): boolean {
    return isSession && canSubmit(client);
  }

  /**
   * Sends two round trips in one piece, and answers each by itself. What fails in the first one changes nothing for the
   * second but the state that the session is in.
   */
  runBoth(
    client: pg.ClientBase,
    first: readonly Statement[],
    second: readonly Statement[],
  ): [Promise<TextRows[]>, Promise<TextRows[]>] {
    const prepared = this.#preparedOn(client);
    const behind = Promise.withResolvers<TextRows[]>();
    const following = new RoundTrip(second, prepared, behind.resolve, behind.reject);
    const answers = ask(client, first, prepared, following);
    client.query(following);
    return [answers, behind.promise];
  }

  #preparedOn(client: pg.ClientBase): Set<string> {
    const prepared = this.#prepared.get(client) ?? new Set();
    this.#prepared.set(client, prepared);
    return prepared;
  }
}

function ask(
  client: pg.ClientBase,
  statements: readonly Statement[],
  prepared: Set<string>,
  following?: RoundTrip,
): Promise<TextRows[]> {
  return new Promise((resolve, reject) => {
    client.query(new RoundTrip(statements, prepared, resolve, reject, following));
  });
}

/** Neither clients in pipeline mode nor the native ones take anything but queries of their own. */
function canSubmit(client: pg.ClientBase): boolean {
  const { connection, pipeline } = client as { connection?: Partial<pg.Connection>; pipeline?: unknown };
  return pipeline !== true && typeof connection?.stream?.write === 'function';
}

async function runAsText(client: pg.ClientBase, statements: readonly Statement[]): Promise<TextRows[]> {
  const texts = statements.map(({ text, values }) =>
    text.replace(/\$(\d+)/g, (_, at: string) => {
      const value = values[Number(at) - 1] ?? null;
      return value === null ? 'null' : client.escapeLiteral(value);
    }),
  );
  const answer = (await client.query({ text: texts.join('; '), rowMode: 'array' })) as unknown;
  const results = (Array.isArray(answer) ? answer : [answer]) as pg.QueryArrayResult<(string | null)[]>[];
  return results.map(({ rows }) => rows);
}

/** What `pg` takes in place of a query: the methods that it calls are named by it. */
class RoundTrip implements pg.Submittable {
  readonly #statements: readonly Statement[];
  readonly #prepared: Set<string>;
  readonly #resolve: (rows: TextRows[]) => void;
  readonly #reject: (error: Error) => void;
  /** Goes out together with this one. */
  readonly #following: RoundTrip | undefined;
  #isSent = false;
  readonly #rows: (string | null)[][][] = [];
  #current: (string | null)[][] = [];
  /** Where `pg` puts what it wants to be told, if it watches the time. */
  callback: ((error: Error | null) => void) | undefined;

  constructor(
    statements: readonly Statement[],
    prepared: Set<string>,
    resolve: (rows: TextRows[]) => void,
    reject: (error: Error) => void,
    following?: RoundTrip,
  ) {
    this.#following = following;
    this.#statements = statements;
    this.#prepared = prepared;
    this.#resolve = resolve;
    this.#reject = reject;
  }

  /** For those who watch what clients are asked, as instrumentation does. */
  get text(): string {
    return this.#statements.map(({ text }) => text).join('; ');
  }

  /** In one piece: a system call for each message of the protocol costs more than all that they say. */
  submit({ stream }: pg.Connection): void {
    if (this.#isSent) return;
    const bytes = new FrontendMessages();
    this.#write(bytes);
    if (this.#following !== undefined) this.#following.#write(bytes);
    stream.write(bytes.take());
  }

  #write(bytes: FrontendMessages): void {
    this.#isSent = true;
    for (const { name, text, values } of this.#statements) {
      if (!this.#prepared.has(name)) {
        bytes.close(name); // what a round trip that failed may have left
        bytes.parse(name, text);
      }
      bytes.bind(name, values);
      bytes.execute();
    }
    bytes.sync();
  }

  handleDataRow({ fields }: { readonly fields: (string | null)[] }): void {
    this.#current.push(fields);
  }

  handleCommandComplete(): void {
    this.#rows.push(this.#current);
    this.#current = [];
  }

  handleError(error: Error): void {
    for (const { name } of this.#statements) this.#prepared.delete(name);
    this.callback?.(error);
    this.#reject(error);
  }

  handleReadyForQuery(): void {
    for (const { name } of this.#statements) this.#prepared.add(name);
    this.callback?.(null);
    this.#resolve(this.#rows);
  }
}
