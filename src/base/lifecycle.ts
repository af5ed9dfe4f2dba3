/** The contract of everything long-lived. */
export interface Service extends AsyncDisposable {
  /** Resolves once the service works. May be called once; throws what keeps it from working. */
  start(): Promise<void>;
  /** Finishes what is under way, then releases everything. May be called before `start`, and more than once. */
  stop(): Promise<void>;
}
