import { PositionSet } from '../../src/source/positions.ts';

/**
 * Counts, in this process, how often the source asks of a message that it meets whether the log holds it already, and it does.
 * What a whole snapshot covers is left out without that question, and is not counted.
 *
 * @returns what takes the count since the last time.
 */
export function countRefusals(): () => number {
  let count = 0;
  const has: unknown = Reflect.get(PositionSet.prototype, 'has');
  if (typeof has !== 'function') throw new TypeError('A set of positions is asked in another way now.');
  PositionSet.prototype.has = function (this: PositionSet, position: number): boolean {
    const isThere = Reflect.apply(has, this, [position]) === true;
    if (isThere) count += 1;
    return isThere;
  };
  return () => {
    const taken = count;
    count = 0;
    return taken;
  };
}
