import { describe, expect, it } from 'vitest';
import { jsonLogger, textLogger } from '../../src/cli/loggers.ts';

function written(use: (write: (text: string) => void) => void): string {
  let text = '';
  use((part) => (text += part));
  return text;
}

describe('a log for people', () => {
  const line = (fields: object, hasColors = false): string =>
    written((write) => {
      textLogger(write, { hasColors }).warn(fields, 'something happened');
    });

  it('has a line an entry: time, level, message, fields', () => {
    expect(line({ epoch: 3, holder: 'host a1', mode: 'wal', waitMs: 12.34567, reason: undefined })).toMatch(
      /^\d\d:\d\d:\d\d\.\d{3} {2}warn {3}something happened {2}epoch=3 {2}holder="host a1" {2}mode=wal {2}waitMs=12\.346\n$/,
    );
  });

  it('stays on one line, whatever the fields hold', () => {
    expect(line({ error: 'first\nsecond', nested: { n: 1n }, cause: new Error('broken') })).toMatch(
      / {2}error="first\\nsecond" {2}nested=\{"n":"1"\} {2}cause="broken"\n$/,
    );
  });

  it('has colors only where it may', () => {
    expect(line({})).not.toContain('\u001b');
    expect(line({}, true)).toContain('\u001b[33mwarn');
  });

  it('leaves out what is only for debugging', () => {
    expect(written((write) => textLogger(write, { hasColors: false }).debug({}, 'detail'))).toBe('');
  });
});

describe('a log for programs', () => {
  it('has a line of JSON an entry, in which fields do not hide time, level and message', () => {
    const text = written((write) => {
      jsonLogger(write).error({ message: 'field', level: 7, offset: 12n, error: new Error('broken') }, 'it broke');
    });
    expect(text).toMatch(/^\{[^\n]*\}\n$/);
    expect(JSON.parse(text)).toEqual({
      time: expect.stringMatching(/^\d{4}-\d\d-\d\dT.*Z$/),
      level: 'error',
      message: 'it broke',
      offset: '12',
      error: 'broken',
    });
  });
});
