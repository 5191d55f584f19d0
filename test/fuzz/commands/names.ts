/** Names of the hosts and subsystems that fuzzers know. */
import { HOST_NQN } from '../../controller/chap-host.ts';

/** The stranger is the host that can authenticate by hand. */
export const nqnOf = (host: number): string =>
  host === HOSTS.stranger ? HOST_NQN : `nqn.2014-08.org.nvmexpress:uuid:0000000${host}-0000-0000-0000-000000000000`;
export const subnqnOf = (number: number): string => `nqn.2026-11.dev.attndrive:rack${number}`;

/** Nobody may not connect. */
export const HOSTS = { owner: 1, guest: 2, stranger: 3, nobody: 4 } as const;
