import { describe, expect, it } from 'vitest';
import { traceContextOf, traceFields, traceHeaders } from '../../src/message/trace-context.ts';

const TRACE = '4bf92f3577b34da6a3ce929d0e0e4736';
const SPAN = '00f067aa0ba902b7';

describe('traceparent', () => {
  it.each([
    ['of version 0', `00-${TRACE}-${SPAN}-01`, 1],
    ['not sampled', `00-${TRACE}-${SPAN}-00`, 0],
    ['of a later version', `cc-${TRACE}-${SPAN}-01`, 1],
    ['of a later version that says more', `cc-${TRACE}-${SPAN}-01-what-the-future-will-be`, 1],
  ])('%s is read', (_what, traceparent, flags) => {
    expect(traceContextOf({ traceparent })).toEqual({ traceId: TRACE, spanId: SPAN, flags });
    expect(traceFields({ traceparent })).toEqual({ traceId: TRACE });
  });

  it.each([
    ['missing', undefined],
    ['empty', ''],
    ['of the forbidden version', `ff-${TRACE}-${SPAN}-01`],
    ['of version 0 and says more', `00-${TRACE}-${SPAN}-01-more`],
    ['in capitals', `00-${TRACE.toUpperCase()}-${SPAN}-01`],
    ['without a trace', `00-${'0'.repeat(32)}-${SPAN}-01`],
    ['without a span', `00-${TRACE}-${'0'.repeat(16)}-01`],
    ['short', `00-${TRACE.slice(1)}-${SPAN}-01`],
    ['cut off', `00-${TRACE}-${SPAN}`],
    ['with space around', ` 00-${TRACE}-${SPAN}-01 `],
  ])('that is %s is none', (_what, traceparent) => {
    const headers = traceparent === undefined ? {} : { traceparent };
    expect(traceContextOf(headers)).toBeUndefined();
    expect(traceFields(headers)).toEqual({});
  });

  it('is written as it is read', () => {
    for (const flags of [0, 1, 0xff]) {
      const context = { traceId: TRACE, spanId: SPAN, flags };
      expect(traceContextOf(traceHeaders(context, 'a=1'))).toEqual(context);
    }
    expect(traceHeaders({ traceId: TRACE, spanId: SPAN, flags: 1 }, 'a=1')).toEqual({
      traceparent: `00-${TRACE}-${SPAN}-01`,
      tracestate: 'a=1',
    });
    expect(traceHeaders({ traceId: TRACE, spanId: SPAN, flags: 1 }, '')).not.toHaveProperty('tracestate');
  });
});
