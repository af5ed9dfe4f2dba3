/** What can stand after a command. */
export interface Place {
  /** The commands on the way to it, each after a slash; empty for the program itself. */
  readonly path: string;
  readonly commands: readonly { readonly name: string; readonly summary: string }[];
  readonly options: readonly PlaceOption[];
  /** The values of its arguments, where there are few. */
  readonly choices: readonly string[];
}

export interface PlaceOption {
  /** With its hyphens. */
  readonly flag: string;
  readonly summary: string;
  readonly takesValue: boolean;
  readonly choices: readonly string[];
}

const paths = (places: readonly Place[]): string[] => places.map(({ path }) => path).filter((path) => path !== '');

function optionsWithChoices(places: readonly Place[]): { path: string; option: PlaceOption }[] {
  return places.flatMap(({ path, options }) =>
    options.filter(({ choices }) => choices.length > 0).map((option) => ({ path, option })),
  );
}

/** Each place with an option of it that takes a value, as in `/topics/create --partitions`. */
function valueOptions(places: readonly Place[], isWanted = (_option: PlaceOption): boolean => true): string[] {
  return places.flatMap(({ path, options }) =>
    options.filter((option) => option.takesValue && isWanted(option)).map(({ flag }) => `${path} ${flag}`),
  );
}

/** What takes any value is completed with names of files. */
function openOptions(places: readonly Place[]): string[] {
  return valueOptions(places, ({ choices }) => choices.length === 0);
}

function quoted(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

/** A script to be sourced by bash. */
export function bashCompletion(places: readonly Place[]): string {
  const values = optionsWithChoices(places).map(
    ({ path, option: { flag, choices } }) =>
      `    ${quoted(`${path} ${flag}`)}) COMPREPLY=($(compgen -W ${quoted(choices.join(' '))} -- "$current")); return ;;\n`,
  );
  const words = places.map(({ path, commands, options, choices }) => {
    const all = [...commands.map(({ name }) => name), ...choices, ...options.map(({ flag }) => flag)];
    return `    ${quoted(path)}) COMPREPLY=($(compgen -W ${quoted(all.join(' '))} -- "$current")) ;;\n`;
  });
  return `# Completion of tailrace for bash: source it.
_tailrace() {
  local word place='' is_value='' current="\${COMP_WORDS[COMP_CWORD]}" previous="\${COMP_WORDS[COMP_CWORD-1]}"
  COMPREPLY=()
  for word in "\${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
    if [[ -n "$is_value" ]]; then is_value=''; continue; fi
    case "$place $word" in
      ${valueOptions(places).map(quoted).join(' | ')}) is_value=1 ;;
    esac
    case "$place/$word" in
      ${paths(places).map(quoted).join(' | ')}) place="$place/$word" ;;
    esac
  done
  case "$place $previous" in
${values.join('')}    ${openOptions(places).map(quoted).join(' | ')}) return ;;
  esac
  case "$place" in
${words.join('')}  esac
}
complete -o default -F _tailrace tailrace
`;
}

/** A script for a folder of zsh's fpath, or to be sourced. */
export function zshCompletion(places: readonly Place[]): string {
  const values = optionsWithChoices(places).map(
    ({ path, option: { flag, choices } }) =>
      `    ${quoted(`${path} ${flag}`)}) compadd -- ${choices.map(quoted).join(' ')}; return ;;\n`,
  );
  const described = (name: string, summary: string): string => quoted(`${name.replaceAll(':', '\\:')}:${summary}`);
  const words = places.map(({ path, commands, options, choices }) => {
    const all = [
      ...commands.map(({ name, summary }) => described(name, summary)),
      ...choices.map((choice) => described(choice, 'value')),
      ...options.map(({ flag, summary }) => described(flag, summary)),
    ];
    return `    ${quoted(path)}) entries=(\n${all.map((entry) => `      ${entry}\n`).join('')}    ) ;;\n`;
  });
  return `#compdef tailrace
_tailrace() {
  local word place='' is_value=''
  local -a entries
  for word in "\${(@)words[2,CURRENT-1]}"; do
    if [[ -n "$is_value" ]]; then is_value=''; continue; fi
    case "$place $word" in
      ${valueOptions(places).map(quoted).join(' | ')}) is_value=1 ;;
    esac
    case "$place/$word" in
      ${paths(places).map(quoted).join(' | ')}) place="$place/$word" ;;
    esac
  done
  case "$place \${words[CURRENT-1]}" in
${values.join('')}    ${openOptions(places).map(quoted).join(' | ')}) _files; return ;;
  esac
  case "$place" in
${words.join('')}  esac
  _describe tailrace entries || _files
}
if [[ "\${funcstack[1]}" == _tailrace ]]; then _tailrace "$@"; else compdef _tailrace tailrace; fi
`;
}

/** A script for fish's folder of completions. */
export function fishCompletion(places: readonly Place[]): string {
  const text = (value: string): string => `'${value.replaceAll('\\', '\\\\').replaceAll("'", "\\'")}'`;
  const lines = places.flatMap(({ path, commands, options, choices }) => {
    const at = `complete -c tailrace -n ${text(`test (__tailrace_place) = "${path}"`)}`;
    return [
      ...commands.map(({ name, summary }) => `${at} -f -a ${name} -d ${text(summary)}`),
      ...choices.map((choice) => `${at} -f -a ${text(choice)}`),
      ...options.map(({ flag, summary, takesValue, choices: values }) => {
        const value = values.length > 0 ? ` -x -a ${text(values.join(' '))}` : takesValue ? ' -r' : '';
        return `${at} -l ${flag.replace(/^--/, '')}${value} -d ${text(summary)}`;
      }),
    ];
  });
  return `# Completion of tailrace for fish.
function __tailrace_place
  set -l place ''
  set -l is_value ''
  for word in (commandline -opc)[2..-1]
    if test -n "$is_value"
      set is_value ''
      continue
    end
    switch "$place $word"
      case ${valueOptions(places).map(text).join(' ')}
        set is_value 1
    end
    switch "$place/$word"
      case ${paths(places).map(text).join(' ')}
        set place "$place/$word"
    end
  end
  echo "$place"
end
${lines.join('\n')}
`;
}
