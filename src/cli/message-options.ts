import { messageOf } from '../base/errors.ts';
import { encodeHeaders } from '../message/headers.ts';
import type { Headers } from '../message/message.ts';
import { usageFailure } from './failure.ts';

/**
 * The text stays as it is, so that no number loses digits; it is only looked at.
 *
 * @param where what holds the text, to begin the message with.
 * @throws CommandFailure exit code 2.
 */
export function assertJson(text: string, where: string): void {
  try {
    JSON.parse(text);
  } catch {
    throw usageFailure(`${where} is not JSON. Expected a value such as {"orderId": "A-1"}; nothing was changed.`);
  }
}

/** @throws CommandFailure exit code 2: a header that no message may have. */
export function encodedHeaders(headers: Headers, of: string): string {
  try {
    return encodeHeaders(headers, of);
  } catch (error) {
    throw usageFailure(messageOf(error));
  }
}
