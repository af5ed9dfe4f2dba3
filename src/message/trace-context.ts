import type { Headers } from './message.ts';

/** The headers of W3C Trace Context. @see https://www.w3.org/TR/trace-context/ */
export const TRACE_PARENT_HEADER = 'traceparent';
export const TRACE_STATE_HEADER = 'tracestate';

/** Which trace something belongs to, and which span of it came before. */
export interface TraceContext {
  /** 32 lower-case hexadecimal digits. */
  readonly traceId: string;
  /** 16 lower-case hexadecimal digits. */
  readonly spanId: string;
  /** 8 bits; the lowest says that the trace is sampled. */
  readonly flags: number;
}

const TRACE_PARENT =
  /^(?<version>[0-9a-f]{2})-(?<traceId>(?!0{32})[0-9a-f]{32})-(?<spanId>(?!0{16})[0-9a-f]{16})-(?<flags>[0-9a-f]{2})(?<more>-.*)?$/;

/** Reads the header `traceparent`; `undefined` if there is none, or if it is not well-formed. */
export function traceContextOf(headers: Headers): TraceContext | undefined {
  const value = headers[TRACE_PARENT_HEADER];
  if (value === undefined) return undefined;
  const { version, traceId, spanId, flags, more } = TRACE_PARENT.exec(value)?.groups ?? {};
  if (traceId === undefined || spanId === undefined || flags === undefined) return undefined;
  if (version === 'ff' || (version === '00' && more !== undefined)) return undefined; // later versions may say more
  return { traceId, spanId, flags: Number.parseInt(flags, 16) };
}

/** The fields of a log line that name a message's trace: none if it has no trace. */
export function traceFields(headers: Headers): { readonly traceId?: string } {
  const context = traceContextOf(headers);
  return context === undefined ? {} : { traceId: context.traceId };
}

/** The headers that carry a context on. */
export function traceHeaders({ traceId, spanId, flags }: TraceContext, traceState: string | undefined): Headers {
  const parent = `00-${traceId}-${spanId}-${flags.toString(16).padStart(2, '0')}`;
  const state = traceState === undefined || traceState === '' ? {} : { [TRACE_STATE_HEADER]: traceState };
  return { [TRACE_PARENT_HEADER]: parent, ...state };
}
