import type { Source } from '../../../src/relay/index.ts';
import { overriding } from '../overriding.ts';

/** Says that a batch is durable as soon as it was read. */
export function ackOnReceive(source: Source): Source {
  return {
    async open(resume, signal, mode) {
      const reader = await source.open(resume, signal, mode);
      return overriding(reader, {
        async next(nextSignal) {
          const batch = await reader.next(nextSignal);
          reader.durable();
          return batch;
        },
        durable: () => undefined,
      });
    },
  };
}
