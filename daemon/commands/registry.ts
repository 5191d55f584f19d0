import { BLOCK_NSID, KV_CACHE_NSID } from '../../spec/kv-commands.ts';
import { adminOpcodes, kvOpcodes, nvmOpcodes, type OpcodeRow } from '../../spec/opcodes.ts';
import { assert } from '../base/assert.ts';
import { adminCommands } from './admin/admin-commands.ts';
import {
  type CommandDefinition,
  type CommandModules,
  type CommandOptions,
  type DiscoveryModules,
  type DiscoveryOptions,
  dwordNames,
} from './contract.ts';
import { discoveryCommands, discoveryRows } from './admin/discovery-commands.ts';
import { kvCommands } from './kv/kv-commands.ts';
import { NamespaceGate } from './namespace-gate.ts';
import { BROADCAST_NSID, namespaces } from './namespace-ids.ts';
import { nvmCommands } from './nvm/nvm-commands.ts';

export interface RegisteredCommand extends CommandDefinition {
  /** For each of `dwordNames`, the bits that must be zero. */
  readonly reservedBits: Uint32Array;
  /** Of the namespaces that it works on: it runs between `enter` and `leave`. Admin commands have none. */
  readonly gates: readonly NamespaceGate[];
}

export interface CommandSet {
  readonly name: 'admin' | 'nvm' | 'kv' | 'discovery';
  /** By opcode. */
  readonly definitions: readonly (RegisteredCommand | undefined)[];
}

/** The commands of one kind of controller. */
export interface CommandSets {
  readonly admin: CommandSet;
  /** The I/O commands of a namespace; undefined: there is none of this id. */
  ofNamespace(namespaceId: number): CommandSet | undefined;
}

/** The commands of a discovery controller, which has no namespaces. */
export const createDiscoveryCommands = (options: DiscoveryOptions, modules: DiscoveryModules): CommandSets => ({
  admin: commandSet('discovery', discoveryRows(modules), discoveryCommands(options, modules), []),
  ofNamespace: () => undefined,
});

/** Every command by opcode. Building it fails if the opcode table and the handlers don't match one to one. */
export class CommandRegistry implements CommandSets {
  readonly admin: CommandSet;
  readonly nvm: CommandSet;
  readonly kv: CommandSet;
  /** Commands that may name all namespaces at once. */
  readonly #broadcast: CommandSet;

  constructor(options: CommandOptions, modules: Omit<CommandModules, 'gates'>) {
    const gates = new Map(namespaces.map(({ nsid }) => [nsid, new NamespaceGate(nsid)]));
    const withGates = { ...modules, gates };
    const gateOf = (nsid: number): NamespaceGate[] => [gates.get(nsid)!];
    this.admin = commandSet('admin', adminOpcodes, adminCommands(options, withGates), []);
    this.nvm = commandSet('nvm', nvmOpcodes, nvmCommands(options, withGates), gateOf(BLOCK_NSID));
    this.kv = commandSet('kv', kvOpcodes, kvCommands(options, withGates), gateOf(KV_CACHE_NSID));
    const all = [...gates.values()];
    const broadcast = this.nvm.definitions.map((row) =>
      row?.namespace === 'oneOrAll' ? { ...row, gates: all } : undefined,
    );
    this.#broadcast = { name: 'nvm', definitions: broadcast };
  }

  ofNamespace(namespaceId: number): CommandSet | undefined {
    switch (namespaceId) {
      case BLOCK_NSID:
        return this.nvm;
      case KV_CACHE_NSID:
        return this.kv;
      case BROADCAST_NSID:
        return this.#broadcast;
      default:
        return undefined;
    }
  }
}

function commandSet(
  name: CommandSet['name'],
  table: Readonly<Record<string, OpcodeRow>>,
  commands: readonly CommandDefinition[],
  gates: readonly NamespaceGate[],
): CommandSet {
  const definitions: (RegisteredCommand | undefined)[] = Array.from({ length: 256 });
  for (const command of commands) {
    const { opcode } = command.row;
    assert(Object.values(table).includes(command.row), `${name} command ${command.row.name} is in the opcode table`);
    assert(definitions[opcode] === undefined, `${name} opcode ${opcode} has one handler`);
    const reservedBits = Uint32Array.from(dwordNames, (dword) => ~(command.allowedBits[dword] ?? 0));
    definitions[opcode] = { ...command, reservedBits, gates };
  }
  for (const row of Object.values(table)) {
    assert(definitions[row.opcode] !== undefined, `${name} command ${row.name} has a handler`);
  }
  return { name, definitions };
}
