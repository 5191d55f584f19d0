/** The machine that figures are of. */
import { cpus, release, totalmem } from 'node:os';
import { nativeUnavailable, supportedIsas } from '../../daemon/kernels/native/native-kernels.ts';
import { bytesText } from '../cli/quantity.ts';

/** "2 × AMD EPYC (avx512dp) · 23 GiB · Linux 6.18.1 · Node 20.20.2". */
export function machineText(): string {
  const [cpu] = cpus();
  const isa = nativeUnavailable() === undefined ? ` (${supportedIsas().at(-1)})` : '';
  return [
    `${cpus().length} × ${cpu?.model.trim() ?? 'CPU'}${isa}`,
    bytesText(totalmem()),
    `Linux ${release()}`,
    `Node ${process.versions.node}`,
  ].join(' · ');
}
