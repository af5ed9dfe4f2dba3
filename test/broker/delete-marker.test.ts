import { expect, it } from 'vitest';
import { isDeleteMarker } from '../../src/broker/delete-marker.ts';

it.each<[string | null, boolean]>([
  ['null', true],
  [' null\n', true],
  ['"null"', false],
  ['{}', false],
  ['0', false],
  [null, false],
])('the payload %j deletes: %s', (payload, expected) => {
  expect(isDeleteMarker(payload)).toBe(expected);
});
