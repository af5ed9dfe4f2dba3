import { createRequire } from 'node:module';
import type * as OpenTelemetry from '@opentelemetry/api';
import { openTelemetryTracing } from './open-telemetry-tracing.ts';
import type { Tracing } from './tracing.ts';

/** The second is what Node says where its condition `module` is on, which leads to a build that is for bundlers only. */
const NOT_FOUND: ReadonlySet<unknown> = new Set(['MODULE_NOT_FOUND', 'ERR_MODULE_NOT_FOUND']);

/**
 * Spans by `@opentelemetry/api`, where that is installed; `undefined` where it is not. Without an SDK that was registered
 * with it, it is not on.
 *
 * @param load gives the package, or throws as `require` does.
 */
export function loadTracing(load: () => typeof OpenTelemetry = requireApi): Tracing | undefined {
  try {
    return openTelemetryTracing(load());
  } catch (error) {
    if (NOT_FOUND.has((error as { readonly code?: unknown }).code)) return undefined;
    throw error;
  }
}

/** Synchronous, since who publishes has no start to wait for. The package keeps what is registered per process, not per copy. */
function requireApi(): typeof OpenTelemetry {
  return createRequire(import.meta.url)('@opentelemetry/api') as typeof OpenTelemetry;
}
