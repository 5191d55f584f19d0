/** Which hosts may connect, how they prove who they are, and what they may take. */
import type { KeyObject } from 'node:crypto';
import type { ChapHash, DhGroup } from '../../spec/authentication.ts';
import type { HostQuotas } from '../../spec/host-quotas.ts';
import type { ChapSecret } from '../../spec/dh-hmac-chap.ts';

/** The socket that a host came by. */
export type HostTransport = 'unix' | 'tcp';

/** A secret in memory: a KeyObject shows its bytes neither to a log nor to an inspector. */
export type HostSecret = ChapSecret<KeyObject>;

/** What a host has to prove, and by which algorithms; the first of a list that the host can use is taken. */
export interface HostAuthentication {
  readonly secret: HostSecret;
  /** Proves the drive to the host; undefined: a host that asks for it is refused. */
  readonly controllerSecret: HostSecret | undefined;
  readonly hashes: readonly ChapHash[];
  readonly dhGroups: readonly DhGroup[];
}

/** What goes for one host. */
export interface HostRules {
  /** Undefined: its word is believed. */
  readonly authentication: HostAuthentication | undefined;
  readonly quotas: HostQuotas;
  /** Whether it may name its own sequences only; others are as if they were not there. */
  readonly isConfined: boolean;
}

export interface HostPolicy {
  /** Undefined: this host may not connect. */
  rulesOf(hostNqn: string, transport: HostTransport): HostRules | undefined;
}
