import assert from 'node:assert/strict';
import { createArena } from '../../daemon/base/arena.ts';
import { type CheckResult, checkImage } from '../../daemon/image/check.ts';
import type { Finding } from '../../daemon/image/finding.ts';
import type { ImageStores } from '../../daemon/image/image.ts';
import { loadKernels } from '../../daemon/kernels/loader.ts';

const arena = createArena(2 ** 20);
const kernels = loadKernels('wasm', { memory: arena.memory });

/** Checks what the stores hold; returns all findings. */
export async function findingsOf(stores: ImageStores): Promise<{ findings: Finding[]; result: CheckResult }> {
  const findings: Finding[] = [];
  const { freeBytes } = arena;
  const result = await checkImage(stores, { arena, kernels }, { onFinding: (finding) => findings.push(finding) });
  assert.equal(arena.freeBytes, freeBytes, 'a check gives back what it took');
  assert.equal(result.findingCount, findings.length);
  return { findings, result };
}

/** Nothing is wrong with what the stores hold. */
export async function assertSound(stores: ImageStores, what: string): Promise<void> {
  const { findings } = await findingsOf(stores);
  assert.deepEqual(
    findings.map(({ kind, text }) => `${kind}: ${text}`),
    [],
    what,
  );
}
