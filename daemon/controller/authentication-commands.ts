import { authenticationCommand, authenticationProtocol } from '../../spec/authentication.ts';
import type { ErrorCode } from '../../spec/errors.ts';
import { limits } from '../../spec/limits.ts';
import { parseSgl, type Sgl } from '../../spec/sgl.ts';
import type { CommandSlot } from './command-slot.ts';
import { answer, type FabricsAnswer } from './fabrics-answer.ts';
import type { Queue, QueueIdentity } from './queue.ts';

/** Authentication Send: a message of the host. What is wrong with the message is answered by the next Receive. */
export async function authenticationSend(queue: Queue, slot: CommandSlot): Promise<FabricsAnswer> {
  const identity = queue.identity as QueueIdentity;
  const problem = locateMessage(slot, identity, ['inCapsule', 'transport']);
  if (problem !== undefined) return answer(problem);
  const message = new Uint8Array(slot.lengthBytes);
  await slot.read(message);
  await identity.authentication.take(message);
  return over(queue, identity);
}

/** Authentication Receive: a message for the host, with zeros up to the length that it asked for. */
export async function authenticationReceive(queue: Queue, slot: CommandSlot): Promise<FabricsAnswer> {
  const identity = queue.identity as QueueIdentity;
  const problem = locateMessage(slot, identity, ['transport']);
  if (problem !== undefined) return answer(problem);
  const message = await identity.authentication.give(slot.lengthBytes);
  const data = new Uint8Array(slot.lengthBytes);
  data.set(message);
  await slot.write(data);
  return over(queue, identity);
}

function locateMessage(
  slot: CommandSlot,
  { controller }: QueueIdentity,
  allowed: readonly Sgl['kind'][],
): ErrorCode | undefined {
  const { bytes } = slot;
  if (authenticationCommand.firstNonZeroReserved(bytes) !== undefined) return 'invalidField';
  const { spsp0, spsp1, secp, lengthBytes } = authenticationCommand.decode(bytes);
  const { spsp0: wanted0, spsp1: wanted1, secp: wantedProtocol } = authenticationProtocol;
  if (spsp0 !== wanted0 || spsp1 !== wanted1 || secp !== wantedProtocol) return 'invalidField';
  if (lengthBytes === 0) return 'invalidField';
  const sgl = parseSgl(bytes, authenticationCommand.offsetOf.sgl);
  if (!sgl.ok) return sgl.error;
  if (!allowed.includes(sgl.value.kind)) return 'sglType';
  const problem = slot.checkFormat() ?? slot.locateData(controller, limits.authenticationBytesMax);
  if (problem !== undefined) return problem;
  if (slot.lengthBytes > limits.authenticationBytesMax) return 'invalidField';
  return slot.lengthBytes === lengthBytes ? undefined : 'sglDataLength';
}

/** After the last message of an authentication that failed the connection ends. */
const over = (queue: Queue, { authentication }: QueueIdentity): FabricsAnswer =>
  authentication.isOver
    ? { code: undefined, dw0: 0, dw1: 0, after: () => queue.end('the host has not authenticated') }
    : answer(undefined);
