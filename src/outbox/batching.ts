/** When a batch is committed. */
export interface BatchLimits {
  /** How long the first message of a batch waits for others, in milliseconds. */
  readonly lingerMs: number;
  readonly messages: number;
  readonly bytes: number;
}

/** The messages of one call, which are committed together. */
export interface WaitingCall {
  readonly count: number;
  readonly bytes: number;
  /** When it was called. */
  readonly sinceMs: number;
}

/** Commit the first `calls` now, or look again after so long, or when there are more. */
export type NextBatch = { readonly calls: number } | { readonly waitMs: number };

/**
 * What is to be done with the calls that wait, in their order; there is one at least. A batch has as many of them as its
 * limits allow, and one at least. It is committed once it is full or its first call has waited long enough.
 *
 * @param isUrgent whether nothing is to wait.
 */
export function nextBatch(
  waiting: readonly WaitingCall[],
  limits: BatchLimits,
  { nowMs, isUrgent }: { readonly nowMs: number; readonly isUrgent: boolean },
): NextBatch {
  let [calls, messages, bytes] = [0, 0, 0];
  for (const call of waiting) {
    const fits = messages + call.count <= limits.messages && bytes + call.bytes <= limits.bytes;
    if (calls > 0 && !fits) return { calls };
    calls += 1;
    messages += call.count;
    bytes += call.bytes;
    if (messages >= limits.messages || bytes >= limits.bytes) return { calls };
  }
  const waitMs = (waiting[0]?.sinceMs ?? nowMs) + limits.lingerMs - nowMs;
  return isUrgent || waitMs <= 0 ? { calls } : { waitMs };
}
