import { quoteSchema } from '../../postgres/schema-name.ts';
import { usageFailure } from '../failure.ts';
import { ROLES, type RoleKind, type RoleRights } from './rights.ts';

/** What the statements need to know. */
export interface InitNames {
  readonly schema: string;
  readonly rolePrefix: string;
}

const PREFIX = /^[a-z_][a-z0-9_]{0,51}$/;

/**
 * Refuses a prefix that makes no name for a role.
 *
 * @throws CommandFailure not 1 to 52 lower-case letters, digits and underscores, or reserved.
 */
export function assertRolePrefix(prefix: string): void {
  if (PREFIX.test(prefix) && !prefix.startsWith('pg_')) return;
  throw usageFailure(
    `--role-prefix is ${JSON.stringify(prefix)}. Expected 1 to 52 lower-case letters, digits and underscores, not starting with a digit or pg_.`,
  );
}

/** The name of a role. */
export function roleName({ rolePrefix }: InitNames, kind: RoleKind): string {
  return `${rolePrefix}_${kind}`;
}

const LOCK = `select pg_advisory_xact_lock(hashtext('tailrace.init'));`;

/** Makes the roles, and lets the migrator create the schema. May be repeated. */
export function rolesSql(names: InitNames): string {
  const create = ROLES.map(({ kind }) => roleName(names, kind)).map(
    (role) => `  if to_regrole('${role}') is null then create role "${role}" nologin; end if;`,
  );
  const migrator = roleName(names, 'migrator');
  return `begin;
${LOCK}
do $roles$ declare mighty text; begin
  select rolname into mighty from pg_roles
    where rolname in (${ROLES.map(({ kind }) => `'${roleName(names, kind)}'`).join(', ')})
      and (rolsuper or rolbypassrls or rolcreaterole) limit 1;
  if mighty is not null then
    raise exception 'the role % exists and may do more than its rights say; name other roles with --role-prefix', mighty
      using errcode = '42710';
  end if;
${create.join('\n')}
  execute format('grant create on database %I to "${migrator}"', current_database());
  -- whoever gives tables to a role has to be a member of it
  if not (select rolsuper from pg_roles where rolname = current_user) then
    execute format('grant "${migrator}" to %I', current_user);
  end if;
end $roles$;
commit;
`;
}

/** Gives the migrator what the schema holds, and each role exactly its rights. May be repeated. */
export function rightsSql(names: InitNames): string {
  return `begin;
${LOCK}
${ownershipSql(names)}
${withdrawalSql(names)}
${ROLES.map((role) => grantsSql(names, role)).join('')}commit;
`;
}

/** Partitions are made by functions that run with the rights of their owner, so owner of tables and functions are one. */
function ownershipSql(names: InitNames): string {
  const { schema } = names;
  const migrator = roleName(names, 'migrator');
  const foreign = (owner: string): string => `${owner} <> '${migrator}'::regrole`;
  return `do $owner$ declare change text; begin
  for change in
    select format('alter schema %I owner to "${migrator}"', nspname) from pg_namespace
      where nspname = '${schema}' and ${foreign('nspowner')}
    union all select format('alter table %s owner to "${migrator}"', oid::regclass) from pg_class
      where relnamespace = '${schema}'::regnamespace and relkind in ('r', 'p', 'v', 'm') and ${foreign('relowner')}
    union all select format('alter routine %s owner to "${migrator}"', oid::regprocedure) from pg_proc
      where pronamespace = '${schema}'::regnamespace and ${foreign('proowner')}
    union all select format('alter publication %I owner to "${migrator}"', pubname) from pg_publication
      where pubname = '${schema}' and ${foreign('pubowner')}
  loop
    execute change;
  end loop;
end $owner$;`;
}

/** Some functions run with the rights of their owner: whoever has no role here must not call them. */
function withdrawalSql(names: InitNames): string {
  const schema = quoteSchema(names.schema);
  const others = ROLES.map(({ kind }) => kind).filter((kind) => kind !== 'migrator');
  const from = ['public', ...others.map((kind) => `"${roleName(names, kind)}"`)].join(', ');
  return `revoke all on schema ${schema} from ${from};
revoke all on all tables in schema ${schema} from ${from};
revoke all on all routines in schema ${schema} from ${from};
alter default privileges for role "${roleName(names, 'migrator')}" revoke execute on routines from public;`;
}

function grantsSql(names: InitNames, { kind, tables, functions }: RoleRights): string {
  if (kind === 'migrator') return '';
  const schema = quoteSchema(names.schema);
  const to = `to "${roleName(names, kind)}";\n`;
  const onTables = Object.entries(tables).map(
    ([table, rights]) => `grant ${rights.join(', ')} on ${schema}.${table} ${to}`,
  );
  const onFunctions = functions.map((name) => `grant execute on function ${schema}.${name} ${to}`);
  return `\ngrant usage on schema ${schema} ${to}${onTables.join('')}${onFunctions.join('')}`;
}
