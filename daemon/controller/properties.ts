import { packBits, packBits64, strayBits, unpackBits } from '../../spec/bits.ts';
import { capBits, ccBits, commandSetSelections, cstsBits, shutdownStates } from '../../spec/fabrics.ts';
import type { Limits } from '../commands/contract.ts';
import type { ControllerState } from './controller-state.ts';

/** CAP.TO and CRTO: the drive is ready before it listens, so this is generous. */
export const READY_TIMEOUT_HALF_SECONDS = 20;
const SUBMISSION_ENTRY_EXPONENT = 6;
const COMPLETION_ENTRY_EXPONENT = 4;

export const capabilities = (limits: Limits, type: 'io' | 'discovery'): bigint =>
  packBits64(capBits, {
    mqes: limits.queueEntriesMax - 1,
    cqr: 1,
    to: READY_TIMEOUT_HALF_SECONDS,
    cssNvm: 1,
    cssIocs: type === 'io' ? 1 : 0,
    crms: 1,
  });

export function status(state: ControllerState): number {
  const shst: Partial<Record<ControllerState, number>> = {
    shuttingDown: shutdownStates.occurring,
    shutDown: shutdownStates.complete,
  };
  return packBits(cstsBits, {
    rdy: state === 'ready' || state === 'shuttingDown' || state === 'shutDown' ? 1 : 0,
    cfs: state === 'failed' ? 1 : 0,
    shst: shst[state] ?? shutdownStates.normal,
  });
}

export interface Configuration {
  readonly enable: boolean;
  readonly shutdown: boolean;
  /** What the drive can't do, if it is to be enabled; undefined: fine. */
  readonly problem: string | undefined;
}

/** Reserved bits make a Property Set fail; the rest is judged when the controller is enabled. */
export function readConfiguration(value: number): Configuration | undefined {
  if (strayBits(ccBits, value) !== 0) return undefined;
  const cc = unpackBits(ccBits, value);
  return { enable: cc.en === 1, shutdown: cc.shn === 1 || cc.shn === 2, problem: configurationProblem(cc) };
}

function configurationProblem(cc: ReturnType<typeof unpackBits<typeof ccBits>>): string | undefined {
  const { nvm, allSupported } = commandSetSelections;
  if (cc.css !== nvm && cc.css !== allSupported) return `CSS ${cc.css}, supported: ${nvm}, ${allSupported}`;
  if (cc.mps !== 0) return `MPS ${cc.mps}, supported: 0`;
  if (cc.ams !== 0) return `AMS ${cc.ams}, supported: 0`;
  if (cc.crime !== 0) return `CRIME ${cc.crime}, supported: 0`;
  if (cc.iosqes !== SUBMISSION_ENTRY_EXPONENT) return `IOSQES ${cc.iosqes}, supported: ${SUBMISSION_ENTRY_EXPONENT}`;
  if (cc.iocqes !== COMPLETION_ENTRY_EXPONENT) return `IOCQES ${cc.iocqes}, supported: ${COMPLETION_ENTRY_EXPONENT}`;
  return undefined;
}
