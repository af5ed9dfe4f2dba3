import { describe, expect, expectTypeOf, it } from 'vitest';
import { decodePayload } from '../../src/message/decode.ts';
import { defineEvent } from '../../src/message/definition.ts';

const OrderPlaced = defineEvent<{ orderId: string; placedAt: Date }>('OrderPlaced', { topic: 'orders' });

describe('decodePayload', () => {
  it('reads JSON, with the type of what arrives', () => {
    const stored = { payload: '{"orderId":"7","placedAt":"2026-01-01T00:00:00.000Z"}', payloadBytes: null };
    const payload = decodePayload(OrderPlaced, stored);
    expectTypeOf(payload).toEqualTypeOf<{ orderId: string; placedAt: string }>();
    expect(payload).toEqual({ orderId: '7', placedAt: '2026-01-01T00:00:00.000Z' });
  });

  it('reads JSON null', () => {
    expect(decodePayload(undefined, { payload: 'null', payloadBytes: null })).toBeNull();
  });

  it('gives bytes as they are', () => {
    const Photo = defineEvent<Uint8Array>('Photo', { topic: 'photos' });
    const payloadBytes = Buffer.from([0, 255]);
    const payload = decodePayload(Photo, { payload: null, payloadBytes });
    expectTypeOf(payload).toEqualTypeOf<Uint8Array>();
    expect(payload).toBe(payloadBytes);
  });

  it('knows no type without a definition', () => {
    expectTypeOf(decodePayload(undefined, { payload: '1', payloadBytes: null })).toEqualTypeOf<unknown>();
  });

  it('refuses what is not JSON without quoting it', () => {
    const decode = (): unknown => decodePayload(OrderPlaced, { payload: '{secret', payloadBytes: null });
    expect(decode).toThrow(expect.objectContaining({ code: 'INVALID_PAYLOAD' }));
    expect(decode).toThrow(/OrderPlaced is not JSON/);
    expect(decode).not.toThrow(/secret/);
    expect(decode).not.toThrow(expect.objectContaining({ cause: expect.anything() as unknown }));
  });

  it('refuses a payload that is not there', () => {
    expect(() => decodePayload(undefined, { payload: null, payloadBytes: null })).toThrow(
      expect.objectContaining({ code: 'INVALID_PAYLOAD' }),
    );
  });
});
