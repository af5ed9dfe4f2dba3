import { messageOf } from '../base/errors.ts';
import type { Logger } from '../base/logger.ts';
import { traceFields } from '../message/trace-context.ts';
import { priorAttempts, type Delivery, type Look } from './delivery.ts';
import type { NextStep } from './next-step.ts';
import type { ConsumerSettings } from './options.ts';
import { verdictOf } from './verdict.ts';

/** Tells the logger what happens to records on their way to handlers. */
export class DeliveryReport {
  readonly #member: Pick<ConsumerSettings, 'group' | 'memberId'>;
  readonly #logger: Logger;
  readonly #saidUnhandled = new Set<string>();

  constructor({ group, memberId, logger }: Pick<ConsumerSettings, 'group' | 'memberId' | 'logger'>) {
    this.#member = { group, memberId };
    this.#logger = logger;
  }

  /** An attempt has failed: `attempt` by number, of so many `records` together. */
  failed(first: Delivery, attempt: number, records: number, error: unknown, { step }: NextStep): void {
    const fields = { ...this.#fieldsOf(first), records, error: messageOf(error), attempt, next: step };
    if (verdictOf(error)?.verdict === 'release') this.#logger.debug(fields, 'A record was given back by its handler');
    else if (step === 'bury') this.#logger.error(fields, 'A record is set aside as a dead letter');
    else this.#logger.warn(fields, 'A record was not handled');
  }

  /** Processes have died of it, as often as it may be tried. */
  died(delivery: Delivery): void {
    const fields = { ...this.#fieldsOf(delivery), attempts: priorAttempts(delivery) };
    this.#logger.error(fields, 'A record is set aside as a dead letter: the process ended whenever it was handled');
  }

  /** Once for each type: there may be many of them. */
  unhandled(topic: string, type: string): void {
    const name = `${topic}/${type}`;
    if (this.#saidUnhandled.has(name)) return;
    this.#saidUnhandled.add(name);
    this.#logger.warn({ ...this.#member, topic, type }, 'Messages of this type have no handler and are set aside');
  }

  /** The database did not take down that an attempt begins. */
  unrecorded(first: Delivery, error: unknown): void {
    const fields = { ...this.#fieldsOf(first), error: messageOf(error) };
    this.#logger.warn(fields, 'Could not record an attempt; trying again');
  }

  /** The database did not answer what is parked. */
  unseen({ partition: { topic, partition } }: Look, error: unknown): void {
    const fields = { ...this.#member, topic, partition, error: messageOf(error) };
    this.#logger.warn(fields, 'Could not look at what is parked; trying again');
  }

  #fieldsOf({ record }: Delivery): object {
    const { topic, partition, offset, messageId, type, headers } = record;
    return { ...this.#member, topic, partition, offset: offset.toString(), messageId, ...traceFields(headers), type };
  }
}
