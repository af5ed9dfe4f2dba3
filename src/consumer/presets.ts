/** Options that are set together. */
export type Preset = 'throughput' | 'latency';

/** What a preset sets, where the option itself is not given. */
export interface PresetSettings {
  /** Fewer if the pool has fewer clients to spare. */
  readonly concurrency: number;
  readonly cursorIntervalMs: number;
  readonly prefetch: { readonly records: number; readonly bytes: number };
  /** `maxRecords` of batch handlers. */
  readonly batchRecords: number;
}

/** `default` stands for no preset. */
export const PRESETS: Readonly<Record<Preset | 'default', PresetSettings>> = {
  default: {
    concurrency: 8,
    cursorIntervalMs: 1_000,
    prefetch: { records: 5_000, bytes: 32_000_000 },
    batchRecords: 500,
  },
  // Large fetches and batches, and few statements besides; more is repeated after a crash.
  throughput: {
    concurrency: 32,
    cursorIntervalMs: 5_000,
    prefetch: { records: 20_000, bytes: 128_000_000 },
    batchRecords: 2_000,
  },
  // Many places, so that a message seldom waits for one, and small fetches and batches, which are read and done soon.
  latency: {
    concurrency: 32,
    cursorIntervalMs: 1_000,
    prefetch: { records: 500, bytes: 8_000_000 },
    batchRecords: 50,
  },
};
