import { describe, expect, it } from 'vitest';
import { defineEvent } from '../../src/message/definition.ts';
import { encodeMessage } from '../../src/message/encode.ts';
import type { Message } from '../../src/message/message.ts';

const Anything = defineEvent('Anything', { topic: 'things' });

function messageWith(change: Record<string, unknown>): Message {
  return { ...Anything({ a: 1 }), ...change };
}

describe('encodeMessage', () => {
  it('gives the columns', () => {
    const message = Anything({ ключ: 1 }, { headers: { tenant: 'ü' }, occurredAt: new Date(0) });
    expect(encodeMessage(message)).toEqual({
      id: message.id,
      kind: 'event',
      type: 'Anything',
      topic: 'things',
      key: null,
      headers: '{"tenant":"ü"}',
      payload: '{"ключ":1}',
      payloadBytes: null,
      occurredAt: '1970-01-01T00:00:00.000Z',
      expiresAt: null,
      deliverAt: null,
      delayMs: null,
      bytes: 'Anything'.length + 'things'.length + 15 + 14,
    });
  });

  it('passes bytes through', () => {
    const bytes = new Uint8Array([0, 1, 255]);
    const encoded = encodeMessage(Anything(bytes));
    expect(encoded.payload).toBeNull();
    expect(encoded.payloadBytes).toBe(bytes);
    expect(encoded.bytes).toBe('Anything'.length + 'things'.length + 2 + 3);
  });

  it.each<[string, Record<string, unknown>, RegExp]>([
    ['INVALID_TYPE', { type: '' }, /type of a message is empty/],
    ['INVALID_TYPE', { type: 7 }, /type of a message is a number/],
    ['INVALID_TYPE', { type: 'x'.repeat(201) }, /201 characters long/],
    ['INVALID_TYPE', { type: 'a\0' }, /NUL/],
    ['INVALID_TYPE', { type: 'a\ud800' }, /lone surrogate/],
    ['INVALID_TOPIC', { topic: '' }, /topic of Anything is ""/],
    ['INVALID_TOPIC', { topic: 'a b' }, /topic of Anything is "a b"/],
    ['INVALID_TOPIC', { topic: 'orders\n' }, /topic of Anything is "orders\\n"/],
    ['INVALID_TOPIC', { topic: 'ü' }, /topic of Anything/],
    ['INVALID_TOPIC', { topic: 'x'.repeat(201) }, /topic of Anything is "x{100}…"/],
    ['INVALID_TOPIC', { topic: undefined }, /topic of Anything is undefined/],
    ['INVALID_KEY', { key: undefined }, /key of Anything is undefined/],
    ['INVALID_KEY', { key: 7 }, /key of Anything is a number/],
    ['INVALID_KEY', { key: 'secret\0' }, /key of Anything is a string with a NUL/],
    ['INVALID_KEY', { key: 'secret\ud800' }, /key of Anything is a string with a lone surrogate/],
    ['INVALID_HEADER', { headers: { a: 1 } }, /header "a" of Anything/],
    ['INVALID_HEADER', { headers: undefined }, /headers of Anything are undefined/],
    ['INVALID_MESSAGE', { id: 'secret' }, /id of a message of type Anything is "secret"/],
    ['INVALID_MESSAGE', { id: undefined }, /id of a message of type Anything is undefined/],
    ['INVALID_MESSAGE', { kind: 'rumour' }, /kind of a message of type Anything is "rumour"/],
    ['INVALID_MESSAGE', { kind: '__proto__' }, /kind of a message/],
    ['INVALID_MESSAGE', { occurredAt: new Date(NaN) }, /occurredAt of a message of type Anything is an invalid Date/],
    ['INVALID_MESSAGE', { occurredAt: '2026-01-01' }, /occurredAt of a message of type Anything is a string/],
    ['INVALID_MESSAGE', { occurredAt: new Date(Date.UTC(10_000, 0, 1)) }, /occurredAt/],
    ['INVALID_MESSAGE', { occurredAt: new Date('0000-12-31') }, /occurredAt/],
    ['INVALID_PAYLOAD', { payload: undefined }, /Found undefined at payload\./],
    ['INVALID_PAYLOAD', { payload: { lines: [{ price: NaN }] } }, /Found NaN at payload\.lines\[0\]\.price\./],
    ['INVALID_PAYLOAD', { payload: { a: 'secret\0' } }, /Found a NUL character at payload\.a\./],
    ['INVALID_PAYLOAD', { payload: { a: 'secret\ud800' } }, /Found a lone surrogate at payload\.a\./],
  ])('%s %#', (code, change, text) => {
    const encode = (): unknown => encodeMessage(messageWith(change));
    expect(encode).toThrow(expect.objectContaining({ code }));
    expect(encode).toThrow(text);
    if (!('id' in change)) expect(encode).not.toThrow(/secret/);
  });

  it('takes every character of a topic, at full length', () => {
    const topic = 'Aa0._-'.padEnd(200, 'z');
    expect(encodeMessage(messageWith({ topic })).topic).toBe(topic);
  });

  it.each([undefined, null, 'text', 7, {}, []])('refuses what is no message: %s', (value) => {
    expect(() => encodeMessage(value as Message)).toThrow(expect.objectContaining({ code: 'INVALID_MESSAGE' }));
  });

  it('says that a definition is to be called', () => {
    expect(() => encodeMessage(Anything as unknown as Message)).toThrow(/the definition Anything itself/);
  });
});

describe('the size of a message', () => {
  /** The bytes of everything but the payload of {@link sized}. */
  const rest = 'things'.length + 'Anything'.length + Buffer.byteLength('ключ') + '{"a":"é"}'.length + 1;

  function sized(payload: unknown): Message {
    return messageWith({ key: 'ключ', headers: { a: 'é' }, payload });
  }

  it.each<[string, unknown, unknown]>([
    ['JSON', 'é'.repeat(499), 'é'.repeat(499) + 'x'],
    ['bytes', new Uint8Array(1_000), new Uint8Array(1_001)],
  ])('of %s may reach the limit and no more', (_, fits, tooLarge) => {
    const allowed = rest + 1_000;
    expect(encodeMessage(sized(fits), allowed).bytes).toBe(allowed);
    expect(() => encodeMessage(sized(tooLarge), allowed)).toThrow(
      expect.objectContaining({
        code: 'MESSAGE_TOO_LARGE',
        details: { type: 'Anything', found: allowed + 1, allowed },
      }),
    );
  });

  it('is limited to 1,000,000 bytes by default', () => {
    const overhead = encodeMessage(Anything('')).bytes;
    expect(encodeMessage(Anything('x'.repeat(1_000_000 - overhead))).bytes).toBe(1_000_000);
    const encode = (): unknown => encodeMessage(Anything('x'.repeat(1_000_001 - overhead)));
    expect(encode).toThrow('has 1000001 bytes; at most 1000000 are allowed');
  });
});
