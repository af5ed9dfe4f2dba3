import type pg from 'pg';
import { defineEvent } from '../../src/message/definition.ts';

export interface Count {
  readonly key: string;
  readonly n: number;
}

/** The n-th message of a key. */
export const Counted = defineEvent<Count>('Counted', { topic: 'numbers', key: ({ key }) => key });
/** Another type in the same topic. */
export const Noted = defineEvent<Count>('Noted', { topic: 'numbers', key: ({ key }) => key });

/** What handlers of these tests leave behind: nothing in it is unique, so that doubled effects show. */
export const EFFECT_TABLE = 'create table effect (id bigserial, key text, n int, member text)';

export interface Effect {
  readonly key: string;
  readonly n: number;
  readonly member: string;
}

/** Writes the effect of a count in a handler's transaction. */
export async function addEffect(tx: pg.ClientBase, { key, n }: Count, member = ''): Promise<void> {
  await tx.query('insert into effect (key, n, member) values ($1, $2, $3)', [key, n, member]);
}
