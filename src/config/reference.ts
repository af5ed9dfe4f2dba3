import { envSuffixOf, expectedOf, flagOf, isOfPipeline, schemaRoot, settingsOf, type Setting } from './settings.ts';

/** The reference of all settings as Markdown, made from the schema. */
export function configReference(): string {
  const settings = settingsOf(schemaRoot());
  return [
    HEAD,
    '## The process\n',
    table(settings.filter((setting) => !isOfPipeline(setting))),
    '## Each pipeline\n',
    'Under `pipelines.<name>`; the name is 1 to 50 lower-case letters, digits and hyphens.\n',
    table(settings.filter(isOfPipeline)),
    FOOT,
  ].join('\n');
}

const HEAD = `# Configuration

Every command takes its settings from a file (\`--config relay.yaml\` or \`$TAILRACE_CONFIG\`, YAML or JSON), from the
environment and from the command line. The names are the same everywhere; the command line wins over the environment, the
environment over the file, the file over the default. \`tailrace relay\` takes all settings and runs every pipeline; the other
commands take the database, the schema, the slot and the partitions of one, which \`--pipeline\` names where there are several.

\`\`\`yaml
pipelines:
  shop:
    databaseUrl: \${SHOP_DATABASE_URL}
  billing:
    databaseUrl: \${BILLING_DATABASE_URL}
    mode: polling
http:
  port: 9464
log:
  format: json
\`\`\`

In a file, \`\${NAME}\` stands for a variable of the environment, which must be set, and \`$\${\` for the two characters \`\${\`.
An unknown setting is an error that names the nearest known one; a wrong value is one that says where it stands, what was
found and what was expected. Then nothing starts.
`;

const FOOT = `In the environment, \`TAILRACE_PIPELINES_SHOP_LEASE_MS\` is for the pipeline \`shop\` (hyphens become underscores) and wins over
the file; \`TAILRACE_LEASE_MS\` is for every pipeline that does not say otherwise. Where no pipeline is named, flags and
environment describe one, which is called \`default\`. Lists are separated by commas. A variable that begins with
\`TAILRACE_\` and is nearly one of these names is an error; others are nobody's business here. Flags of a pipeline are for the
one that \`--pipeline\` names, or for the only one; where there are several, \`tailrace relay\` refuses them. Without a file,
\`DATABASE_URL\` stands in for \`TAILRACE_DATABASE_URL\`. A command that works on one pipeline does not mind variables that the
file refers to elsewhere and that are not set.

On SIGHUP the file is read again. Pipelines that were added are started, those that were removed are stopped, those that
were changed or had halted are started anew; \`log.level\` and \`shutdownTimeoutMs\` apply at once. \`http\` and \`log.format\`
need a restart, which the log says. A file that cannot be used changes nothing.
`;

function table(settings: readonly Setting[]): string {
  const rows = settings.map((setting) => {
    const { path, node } = setting;
    const name = (isOfPipeline(setting) ? path.slice(2) : path).join('.');
    const flag = flagOf(setting);
    return [
      `\`${name}\``,
      `\`TAILRACE_${envSuffixOf(setting)}\``,
      flag === undefined ? 'none' : `\`${flag}\``,
      defaultOf(setting),
      `${node.description ?? ''} Expected: ${expectedOf(node)}.`,
    ];
  });
  const head = ['setting', 'environment', 'flag', 'default', ''];
  const lines = [head, head.map(() => '---'), ...rows].map((cells) => `| ${cells.join(' | ')} |`);
  return `${lines.join('\n')}\n`;
}

function defaultOf({ node, isRequired }: Setting): string {
  if (node.otherwise !== undefined) return node.otherwise;
  if (isRequired) return 'required';
  return `\`${JSON.stringify(node.default)}\``;
}
