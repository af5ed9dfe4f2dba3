import * as api from '@opentelemetry/api';
import { expect, it } from 'vitest';
import { loadTracing } from '../../src/telemetry/load-tracing.ts';
import { Sdk } from './spans.ts';

it.each(['MODULE_NOT_FOUND', 'ERR_MODULE_NOT_FOUND'])(
  'there is no tracing where the package is missing: %s',
  (code) => {
    const missing = (): never => {
      throw Object.assign(new Error("Cannot find module '@opentelemetry/api'"), { code });
    };
    expect(loadTracing(missing)).toBeUndefined();
  },
);

it('a package that is there and broken is no package that is missing', () => {
  const broken = (): never => {
    throw new SyntaxError('Unexpected token');
  };
  expect(() => loadTracing(broken)).toThrow('Unexpected token');
});

it('tracing is on while an SDK is registered, also one that comes later', () => {
  const tracing = loadTracing();
  expect(tracing?.isOn).toBe(false);
  {
    using _sdk = new Sdk();
    expect(tracing?.isOn).toBe(true);
  }
  expect(tracing?.isOn).toBe(false);
});

it('the package that is loaded and the one that the application imports share what is registered', async () => {
  using sdk = new Sdk(); // registered with what was imported here
  await loadTracing()?.publish('publish', [{ topic: 'orders' }], async (headers) => {
    expect(headers?.['traceparent']).toContain(api.trace.getActiveSpan()?.spanContext().spanId);
    return undefined;
  });
  expect(sdk.spans.map(({ name }) => name)).toEqual(['publish orders']);
});

it('without an SDK there are no headers', async () => {
  await loadTracing()?.publish('publish', [{ topic: 'orders' }], async (headers) => {
    expect(headers).toBeUndefined();
    return undefined;
  });
  expect.assertions(1);
});
