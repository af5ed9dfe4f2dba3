/** A piece of an example: what stands between `#region name` and `#endregion`. */
export type Regions = ReadonlyMap<string, string>;

/** The regions of a source text, without the indentation that their lines share. */
export function regionsOf(source: string): Regions {
  const regions = new Map<string, string>();
  let name: string | undefined;
  let lines: string[] = [];
  for (const line of source.split('\n')) {
    const start = /^\s*(?:\/\/|--) #region (\S+)$/.exec(line)?.[1];
    if (start !== undefined) {
      if (name !== undefined) throw new Error(`The region ${start} begins inside the region ${name}.`);
      [name, lines] = [start, []];
    } else if (/^\s*(?:\/\/|--) #endregion$/.test(line)) {
      if (name === undefined) throw new Error('A region ends that did not begin.');
      if (regions.has(name)) throw new Error(`There are two regions ${name}.`);
      regions.set(name, dedented(lines));
      name = undefined;
    } else lines.push(line);
  }
  if (name !== undefined) throw new Error(`The region ${name} does not end.`);
  return regions;
}

function dedented(lines: readonly string[]): string {
  const indents = lines.filter((line) => line.trim() !== '').map((line) => line.length - line.trimStart().length);
  const shared = Math.min(...indents);
  return lines
    .map((line) => line.slice(shared))
    .join('\n')
    .trim();
}

/** A fenced block of a Markdown text. */
export interface Block {
  readonly language: string;
  readonly text: string;
  /** What the comment above it names, as in `<!-- examples/quickstart.ts#publish -->`. */
  readonly origin: string | undefined;
  readonly line: number;
}

/** All fenced blocks of a Markdown text. */
export function blocksOf(markdown: string): Block[] {
  const blocks: Block[] = [];
  const lines = markdown.split('\n');
  for (let at = 0; at < lines.length; at++) {
    const language = /^```(\w*)$/.exec(lines[at] ?? '')?.[1];
    if (language === undefined) continue;
    const end = lines.indexOf('```', at + 1);
    if (end < 0) throw new Error(`The block in line ${at + 1} does not end.`);
    const origin = /^<!-- (\S+#\S+) -->$/.exec(lines.slice(0, at).findLast((line) => line.trim() !== '') ?? '')?.[1];
    blocks.push({ language, text: lines.slice(at + 1, end).join('\n'), origin, line: at + 1 });
    at = end;
  }
  return blocks;
}
