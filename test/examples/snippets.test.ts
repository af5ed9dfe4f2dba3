import { describe, expect, it } from 'vitest';
import { blocksOf, regionsOf } from './snippets.ts';

describe('the regions of an example', () => {
  it('are cut out, without the indentation that they share', () => {
    const source = ['before', '  // #region a', '  if (x) {', '', '    y();', '  }', '  // #endregion', 'after'];
    const sql = ['-- #region b', 'select 1', '-- #endregion'];
    expect([...regionsOf([...source, ...sql].join('\n'))]).toEqual([
      ['a', 'if (x) {\n\n  y();\n}'],
      ['b', 'select 1'],
    ]);
  });

  it.each([
    ['does not end', '// #region a'],
    ['did not begin', '// #endregion'],
    ['two regions', '// #region a\n// #endregion\n// #region a\n// #endregion'],
    ['begins inside', '// #region a\n// #region b\n// #endregion'],
  ])('are refused where one %s', (what, source) => {
    expect(() => regionsOf(source)).toThrow(what);
  });
});

describe('the blocks of a Markdown text', () => {
  it('are found with the origin that stands above them', () => {
    const text = ['# a', '<!-- x.ts#y -->', '', '```ts', 'one', '```', '', '```sh', 'two', '```'].join('\n');
    expect(blocksOf(text)).toEqual([
      { language: 'ts', text: 'one', origin: 'x.ts#y', line: 4 },
      { language: 'sh', text: 'two', origin: undefined, line: 8 },
    ]);
  });
});
