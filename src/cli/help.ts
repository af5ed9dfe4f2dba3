/** The end of a command's help: how it is called. */
export function exampleHelp(...lines: readonly string[]): string {
  const title = lines.length === 1 ? 'Example:' : 'Examples:';
  return ['', title, ...lines.map((line) => `  ${line}`)].join('\n');
}
