import type { Logger } from '../base/logger.ts';
import {
  afterBegin,
  afterEnd,
  CLOSED,
  mayBegin,
  type Circuit,
  type CircuitOutcome,
  type CircuitRules,
} from './circuit.ts';

/** Keeps the circuit of one consumer, or none if there are no rules, and says when it opens and closes. */
export class CircuitBreaker {
  readonly #rules: CircuitRules | false;
  readonly #onDue: () => void;
  readonly #logger: Logger;
  readonly #fields: object;
  #circuit: Circuit = CLOSED;
  #timer: NodeJS.Timeout | undefined;

  /** `onDue` is called when a probe may begin; `fields` are logged. */
  constructor(rules: CircuitRules | false, onDue: () => void, logger: Logger, fields: object) {
    this.#rules = rules;
    this.#onDue = onDue;
    this.#logger = logger;
    this.#fields = fields;
  }

  /** `undefined` if there is no circuit breaker. */
  get state(): Circuit['state'] | undefined {
    return this.#rules === false ? undefined : this.#circuit.state;
  }

  get mayBegin(): boolean {
    return mayBegin(this.#circuit, performance.now());
  }

  /** An attempt begins. Answers whether it is a probe. */
  begin(): boolean {
    this.#circuit = afterBegin(this.#circuit);
    return this.#circuit.state === 'half-open';
  }

  end(outcome: CircuitOutcome, isProbe: boolean): void {
    if (this.#rules === false) return;
    const before = this.#circuit.state;
    this.#circuit = afterEnd(this.#circuit, { outcome, isProbe }, this.#rules, performance.now());
    if (this.#circuit.state === 'open' && before !== 'open') this.#waitForProbe(this.#circuit, before);
    if (this.#circuit.state === 'closed' && before !== 'closed') {
      this.#logger.info(this.#fields, 'A probe was handled: the circuit is closed, handlers are called again');
    }
  }

  /** No probe will begin by itself any more. */
  stop(): void {
    clearTimeout(this.#timer);
  }

  #waitForProbe({ until, failedProbes }: Extract<Circuit, { state: 'open' }>, before: Circuit['state']): void {
    const waitMs = Math.max(0, Math.ceil(until - performance.now()));
    this.#wakeAt(until);
    if (before === 'closed') {
      this.#logger.error(
        { ...this.#fields, probeInMs: waitMs },
        'Handlers fail one after the other: the circuit is open',
      );
    } else if (waitMs > 0) {
      this.#logger.warn({ ...this.#fields, probeInMs: waitMs, failedProbes }, 'A probe failed: the circuit stays open');
    }
  }

  /** Timers may fire a moment before their time. */
  #wakeAt(until: number): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(
      () => {
        if (performance.now() < until) this.#wakeAt(until);
        else this.#onDue();
      },
      Math.max(0, Math.ceil(until - performance.now())),
    );
  }
}
