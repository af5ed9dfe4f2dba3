import type { Logger } from '../base/logger.ts';
import type { UnroutableMessages } from '../broker/log.ts';

const INTERVAL_MS = 10_000;

/** Reports messages that became dead letters: for each topic at once, and then at most every 10 seconds, with their number. */
export class UnroutableAlarm {
  readonly #logger: Logger;
  readonly #nowMs: () => number;
  readonly #topics = new Map<string, { loggedAtMs: number; since: number }>();

  constructor(logger: Logger, nowMs: () => number = () => performance.now()) {
    this.#logger = logger;
    this.#nowMs = nowMs;
  }

  sound({ topic, ids, reason, error }: UnroutableMessages): void {
    const nowMs = this.#nowMs();
    const { loggedAtMs, since } = this.#topics.get(topic) ?? { loggedAtMs: -Infinity, since: 0 };
    const messages = since + ids.length;
    const isDue = nowMs - loggedAtMs >= INTERVAL_MS;
    this.#topics.set(topic, isDue ? { loggedAtMs: nowMs, since: 0 } : { loggedAtMs, since: messages });
    if (!isDue) return;
    this.#logger.error(
      { topic, reason, error, messages, lastPosition: ids.at(-1) },
      'messages cannot be routed and were set aside as dead letters of the relay: tailrace dead-letters list --relay',
    );
  }
}
