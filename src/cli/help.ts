/** The end of a command's help: how it is called. */
export function exampleHelp(...lines: readonly string[]): string {
  const title = lines.length === 1 ? 'Example:' : 'Examples:';
  return ['', title, ...lines.map((line) => `  ${line}`)].join('\n');
}

/** The end of the help of a group of commands, of which one is meant where none is named. */
export function defaultCommandHelp(command: string): string {
  return `\nWithout a command it is "${command}", with the options of that: --json and those that ${command} --help tells.`;
}
