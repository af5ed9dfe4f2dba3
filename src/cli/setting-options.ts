import { Option, type Command } from 'commander';
import { expectedOf, flagOf, schemaRoot, settingId, settingsOf, type Setting } from '../config/settings.ts';
import { databaseUrlOption } from './database-url.ts';
import { wholeNumber } from './whole-number.ts';

/** Options as commander gives them, by their names in camel case. */
export type GivenOptions = Readonly<Record<string, unknown>>;

/** Adds a flag for each setting that may have one. They have no defaults: what is not given may stand elsewhere. */
export function addSettingOptions(command: Command): Command {
  for (const { option } of settingOptions()) command.addOption(option);
  return command;
}

/** The settings that were given, as texts by their names. */
export function givenSettings(options: GivenOptions): Record<string, string> {
  const given: Record<string, string> = {};
  for (const { id, option } of settingOptions()) {
    const value = options[option.attributeName()];
    if (typeof value === 'string' || typeof value === 'number') given[id] = `${value}`;
  }
  return given;
}

function settingOptions(): { readonly id: string; readonly option: Option }[] {
  return settingsOf(schemaRoot()).flatMap((setting) => {
    const flag = flagOf(setting);
    if (flag === undefined) return [];
    const id = settingId(setting);
    return [{ id, option: id === 'databaseUrl' ? databaseUrlOption() : optionOf(flag, setting) }];
  });
}

function optionOf(flag: string, setting: Setting): Option {
  const { node } = setting;
  const option = new Option(`${flag} <${placeholderOf(setting)}>`, helpOf(setting));
  if (node.enum !== undefined) return option.choices(node.enum);
  if (node.type === 'boolean') return option.choices(['true', 'false']);
  if (node.type === 'integer') return option.argParser(wholeNumber(node.minimum ?? 0, node.maximum ?? 0));
  return option;
}

function placeholderOf({ path, node }: Setting): string {
  const name = path.at(-1) ?? '';
  if (name.endsWith('Ms')) return 'ms';
  if (node.type === 'array') return 'list';
  return node.enum === undefined ? (node.expected?.startsWith('a path') === true ? 'path' : 'value') : name;
}

function helpOf({ node }: Setting): string {
  const otherwise = node.otherwise ?? defaultOf(node.default);
  const text = (node.description ?? expectedOf(node)).replaceAll('`', '').replace(/\.$/, '');
  return otherwise === undefined || otherwise === '' ? text : `${text} (default: ${otherwise})`;
}

function defaultOf(value: unknown): string | undefined {
  if (value === undefined || Array.isArray(value)) return undefined;
  return typeof value === 'string' ? value : JSON.stringify(value);
}
