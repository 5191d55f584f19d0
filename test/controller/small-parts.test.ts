import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { standardQuotas } from '../../spec/host-quotas.ts';
import { limits } from '../../spec/limits.ts';
import { parseSgl } from '../../spec/sgl.ts';
import { DriveError } from '../../daemon/base/errors.ts';
import type { Association, MemoryRegion } from '../../daemon/commands/contract.ts';
import { CommandSlot } from '../../daemon/controller/command-slot.ts';
import type { QueueLink } from '../../daemon/controller/contract.ts';
import { HostAccount } from '../../daemon/hosts/host-account.ts';
import { KeepAlive } from '../../daemon/controller/keep-alive.ts';
import { AssociationSlots } from '../../daemon/controller/result-slots.ts';
import { TransferBudget } from '../../daemon/controller/transfer-budget.ts';
import { untimed } from '../../daemon/timing/device-job.ts';
import { ManualClock } from './rig.ts';

const account = new HostAccount({ quotas: () => standardQuotas, onRefused: () => undefined });

describe('the SGL of a command', () => {
  const region = { check: () => undefined } as unknown as MemoryRegion;
  const association = { region: () => region } as unknown as Association;
  const slot = new CommandSlot({
    link: {} as QueueLink,
    owner: {
      finished: () => undefined,
      failed: () => undefined,
      released: () => undefined,
      detachBudget: () => () => undefined,
    },
    signal: new AbortController().signal,
    bytes: { inCapsule: 0, inPdu: 0, outPdu: 0 },
    createJob: () => untimed,
  });

  test('is read as the table of spec/ says', () => {
    const byte = fc.oneof(fc.constant(0), fc.nat(255));
    const descriptor = fc
      .tuple(
        fc.array(byte, { minLength: 15, maxLength: 15 }),
        fc.constantFrom(0x00, 0x01, 0x40, 0x5a, 0x41, 0x20, 0xff),
      )
      .map(([bytes, type]) => Uint8Array.from([...bytes, type]));
    fc.assert(
      fc.property(descriptor, (sgl) => {
        const entry = new Uint8Array(64);
        // A vendor opcode that moves data both ways: no direction gets in between.
        entry[0] = 0xc3;
        entry.set(sgl, 24);
        const expected = parseSgl(sgl);
        const offset = expected.ok && expected.value.kind === 'inCapsule' ? expected.value.offset : 0;
        const length = expected.ok && expected.value.kind !== 'none' ? expected.value.length : 0;
        const isInCapsule = expected.ok && expected.value.kind === 'inCapsule';
        const fits = !isInCapsule || offset + length <= 100;
        slot.load(new DataView(entry.buffer), 0, isInCapsule && fits ? new Uint8Array(100) : new Uint8Array(0));
        const problem = slot.locateData(association, 0xffff_ffff);
        if (!expected.ok) assert.equal(problem, expected.error);
        else if (fits) {
          assert.equal(problem, undefined);
          assert.equal(slot.lengthBytes, length);
        } else assert.ok(problem === 'sglOffset' || problem === 'sglDataLength');
      }),
      { numRuns: 3000, seed: 3 },
    );
  });
});

describe('result slots', () => {
  const slots = () =>
    new AssociationSlots({ limits: { ...limits, resultSlotCountMax: 4, resultSlotBytesTotalMax: 100 } }, { account });
  const code = (expected: string) => (error: unknown) => error instanceof DriveError && error.code === expected;

  test('claim, write, commit, read, free', () => {
    const all = slots();
    all.claim(2, 10);
    assert.throws(() => all.read(2), code('slotEmpty'));
    assert.throws(() => all.claim(2, 1), code('slotInUse'));
    all.write(2, 4, Uint8Array.of(1, 2));
    all.commit(2);
    assert.deepEqual([...all.read(2)], [0, 0, 0, 0, 1, 2, 0, 0, 0, 0]);
    assert.throws(() => all.claim(2, 1), code('slotInUse'));
    all.free(2);
    assert.throws(() => all.read(2), code('slotEmpty'));
    assert.deepEqual([all.usedCount, all.usedBytes], [0, 0]);
  });

  test('number and bytes are bounded', () => {
    const all = slots();
    assert.throws(() => all.claim(4, 1), code('slotLimit'));
    assert.throws(() => all.read(4), code('slotLimit'));
    all.claim(0, 60);
    assert.throws(() => all.claim(1, 41), code('slotLimit'));
    all.claim(1, 40);
    all.abandon(0);
    all.claim(2, 60);
    assert.equal(all.usedBytes, 100);
  });
});

test('the budget never lets more run than its bounds, and wakes who waits', () => {
  const perConnection = 1000;
  const total = 2500;
  const bounds = { ...limits, connectionDataBytesMax: perConnection, dataBytesTotalMax: total };
  const step = fc.record({ connection: fc.nat(4), bytes: fc.integer({ min: 1, max: 900 }), release: fc.boolean() });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 200 }), (steps) => {
      const budget = new TransferBudget({ limits: bounds });
      const shares = Array.from({ length: 5 }, () => ({ dataBytes: 0 }));
      const held: { connection: number; bytes: number }[] = [];
      let woken = 0;
      for (const { connection, bytes, release } of steps) {
        const share = shares[connection] as { dataBytes: number };
        if (release) {
          const last = held.pop();
          if (last === undefined) continue;
          const before = woken;
          budget.wait(() => woken++);
          budget.release(shares[last.connection] as { dataBytes: number }, last.bytes);
          assert.equal(woken, before + 1);
        } else if (budget.tryAcquire(share, bytes)) held.push({ connection, bytes });
        for (const { dataBytes } of shares) assert.ok(dataBytes <= perConnection);
        // One small command for each connection that had nothing running may be over the total.
        assert.ok(budget.runningBytes <= total + shares.length * 900);
        assert.equal(
          budget.runningBytes,
          held.reduce((sum, row) => sum + row.bytes, 0),
        );
      }
    }),
    { numRuns: 100, seed: 5 },
  );
});

test('a large command of an idle connection waits while the total is used up, a small one does not', () => {
  const budget = new TransferBudget({ limits: { ...limits, dataBytesTotalMax: 1 << 20 } });
  const first = { dataBytes: 0 };
  const second = { dataBytes: 0 };
  assert.equal(budget.tryAcquire(first, 16 << 20), true, 'alone, even beyond the total');
  assert.equal(budget.tryAcquire(second, 65_537), false);
  assert.equal(budget.tryAcquire(second, 65_536), true);
  assert.equal(budget.tryAcquire(second, 1), false, 'only one');
});

test('keep alive: a drive that stood still listens for another period', () => {
  let nowNs = 0;
  let due: () => void = () => undefined;
  const clock = {
    nowNs: () => nowNs,
    wallMs: () => 0,
    setTimer: (_delayMs: number, callback: () => void) => {
      due = callback;
      return { cancel: () => undefined };
    },
  };
  let expired = 0;
  const keepAlive = new KeepAlive({ clock, expired: () => expired++ });
  keepAlive.start(1000);
  nowNs += 3600e9;
  due();
  assert.equal(expired, 0, 'what came meanwhile is not read yet');
  nowNs -= 7200e9;
  due();
  assert.equal(expired, 1, 'the clock went back, the timer is due all the same');
  keepAlive.start(1000);
  nowNs += 1e9;
  due();
  assert.equal(expired, 2);
});

test('keep alive: 0 never expires, a new timeout starts anew, stop ends it', () => {
  const clock = new ManualClock();
  let expired = 0;
  const keepAlive = new KeepAlive({ clock, expired: () => expired++ });
  keepAlive.start(0);
  clock.advance(1e9);
  assert.deepEqual([expired, clock.timerCount], [0, 0]);
  keepAlive.start(100);
  clock.advance(99);
  keepAlive.start(100);
  clock.advance(99);
  assert.equal(expired, 0);
  keepAlive.touch();
  clock.advance(100);
  assert.equal(expired, 0);
  clock.advance(100);
  assert.equal(expired, 1);
  keepAlive.start(100);
  keepAlive.stop();
  clock.advance(1000);
  assert.equal(expired, 1);
});
