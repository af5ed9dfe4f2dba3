import pg from 'pg';
import type { FailPoints } from './fail-points.ts';

/** Statements at which a process can be made to die or to stand still, by a part of their text. */
const STATEMENTS = {
  'lease.create': /insert into \S+relay_lease\b/,
  'lease.take': /update \S+relay_lease l set epoch/,
  'lease.renew': /update \S+relay_lease set backend_pid/,
  'lease.give-up': /update \S+relay_lease set expires_at = clock_timestamp\(\), backend_pid/,
  'member.heartbeat': /insert into \S+consumer_member\b/,
  'partition.take': /update \S+consumer_cursor c set owner = \$4, epoch/,
  'partition.advance': /update \S+consumer_cursor c set next_offset/,
  'handler.begin': /insert into \S+processed_message\b/,
  'handler.commit': /assert_assignment\(/,
} as const satisfies Readonly<Record<string, RegExp>>;

type StatementName = keyof typeof STATEMENTS;

function pointsOf(...names: readonly StatementName[]): string[] {
  return names.flatMap((name) => [`${name}.before`, `${name}.sent`, `${name}.after`]);
}

/** Of the relay that leads. */
export const RENEWAL_POINTS = pointsOf('lease.renew');
/** Of a relay that is about to lead. */
export const TAKEOVER_POINTS = pointsOf('lease.take');
/** Of a consumer that has partitions. */
export const GROUP_POINTS = pointsOf('member.heartbeat', 'partition.advance', 'handler.begin', 'handler.commit');

/** Puts points around what this process asks of the server, whoever in it asks. */
export function watchStatements(points: FailPoints): void {
  const query: unknown = Reflect.get(pg.Client.prototype, 'query');
  if (typeof query !== 'function') throw new TypeError('Clients are asked in another way now.');
  const watched = function (this: pg.Client, ...args: readonly unknown[]): unknown {
    const name = nameOf(args[0]);
    if (name === undefined) return Reflect.apply(query, this, args) as unknown;
    points.reach(`${name}.before`);
    const answer: unknown = Reflect.apply(query, this, args);
    setImmediate(() => points.reach(`${name}.sent`));
    onAnswered(answer, () => points.reach(`${name}.after`));
    return answer;
  };
  Reflect.set(pg.Client.prototype, 'query', watched);
}

/** Statements answer with a promise, or take part in the protocol themselves, as `pg` calls it a `Submittable`. */
function onAnswered(answer: unknown, act: () => void): void {
  if (answer instanceof Promise) answer.then(act).catch(() => undefined);
  else if (isSubmittable(answer)) {
    const ready = answer.handleReadyForQuery.bind(answer);
    answer.handleReadyForQuery = (...args) => {
      act();
      ready(...args);
    };
  }
}

interface Submittable {
  handleReadyForQuery(...args: readonly unknown[]): void;
}

function isSubmittable(answer: unknown): answer is Submittable {
  return typeof answer === 'object' && answer !== null && 'handleReadyForQuery' in answer;
}

function nameOf(statement: unknown): StatementName | undefined {
  const text = typeof statement === 'string' ? statement : textOf(statement);
  if (text === undefined) return undefined;
  return (Object.keys(STATEMENTS) as StatementName[]).find((name) => STATEMENTS[name].test(text));
}

function textOf(statement: unknown): string | undefined {
  if (typeof statement !== 'object' || statement === null || !('text' in statement)) return undefined;
  return typeof statement.text === 'string' ? statement.text : undefined;
}
