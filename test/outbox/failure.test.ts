import { expect, it } from 'vitest';
import { explainFailure } from '../../src/outbox/failure.ts';

function postgresError(code: string, message: string, place: object = {}): Error {
  return Object.assign(new Error(message), { code, ...place });
}

const outbox = { schema: 'tailrace', table: 'outbox' };

it.each([
  'relation "tailrace.outbox" does not exist',
  'Relation »tailrace.outbox« existiert nicht',
  'la relation « tailrace.outbox » n’existe pas',
])('a missing table is known in every language of the server: %s', (message) => {
  const cause = postgresError('42P01', message);
  expect(explainFailure(cause, 'tailrace')).toMatchObject({ code: 'NOT_MIGRATED', cause });
});

it('a function that is missing since the schema is older is known', () => {
  const cause = postgresError('42883', 'function tailrace.lock_key(text, text) does not exist');
  expect(explainFailure(cause, 'tailrace')).toMatchObject({ code: 'NOT_MIGRATED', cause });
  const other = postgresError('42883', 'function mine.lock_key(text, text) does not exist');
  expect(explainFailure(other, 'tailrace')).toBe(other);
});

it('a missing partition is known by its place', () => {
  const cause = postgresError('23514', 'no partition', outbox);
  expect(explainFailure(cause, 'tailrace')).toMatchObject({ code: 'OUTBOX_PARTITION_MISSING', cause });
});

it.each([
  postgresError('42P01', 'relation "tailrace.outbox_audit" does not exist'),
  postgresError('42P01', 'relation "my_tailrace.outbox" does not exist'),
  postgresError('42P01', 'relation "tailrace.outbox.x" does not exist'),
  postgresError('XX000', 'relation "tailrace.outbox" does not exist'),
  postgresError('23514', 'a check of the table', { ...outbox, constraint: 'outbox_one_payload' }),
  postgresError('23514', 'no partition of another', { ...outbox, schema: 'mine' }),
  postgresError('23514', 'no partition of another', { ...outbox, table: 'orders' }),
  new Error('Connection terminated'),
  'a string',
])('anything else comes through as it is: %s', (error) => {
  expect(explainFailure(error, 'tailrace')).toBe(error);
});
