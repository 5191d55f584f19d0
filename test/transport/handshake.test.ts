import assert from 'node:assert/strict';
import { test } from 'node:test';
import { identifyController } from '../../spec/identify.ts';
import { adminOpcodes } from '../../spec/opcodes.ts';
import { icResp, pduTypes } from '../../spec/pdu.ts';
import { createRig, SERIAL } from '../controller/rig.ts';
import { RawHost } from '../controller/raw-host.ts';

for (const kind of ['unix', 'tcp'] as const) {
  test(`ICReq, Connect and Identify over ${kind}`, async (t) => {
    const rig = await createRig(t);
    const host = await RawHost.open(rig[kind]);
    t.after(() => host.close());
    const response = await host.initialize();
    assert.equal(response?.type, pduTypes.icResp.type);
    const { pfv, cpda, dgst, maxh2cdata } = icResp.decode(response.header);
    assert.deepEqual({ pfv, cpda, dgst, maxh2cdata }, { pfv: 0, cpda: 0, dgst: 0, maxh2cdata: 131_072 });
    const connected = await host.connect({}, { subnqn: rig.nqn });
    assert.equal(connected.status, 0);
    const cntlid = connected.dw0;
    assert.ok(cntlid >= 1 && cntlid < 0xfff0);
    await host.propertySet(0x14, 0x0046_0061);
    const identify = await host.read({ opcode: adminOpcodes.identify.opcode, cdw10: 1 }, 4096);
    assert.equal(identify.status, 0);
    const controller = identifyController.decode(identify.data);
    assert.equal(controller.sn, SERIAL);
    assert.equal(controller.subnqn, rig.nqn);
    assert.equal(controller.cntlid, cntlid);
    assert.equal(controller.mdts, 8);
    assert.equal(controller.ioccsz, (64 + 32_768) / 16);
  });
}
